create table product (
  id uuid primary key,
  sku text not null,
  name text not null,
  description text not null,
  category text not null,
  price_amount bigint not null check (price_amount >= 0),
  price_currency char(3) not null,
  version integer not null check (version >= 1),
  created_at timestamptz(3) not null,
  updated_at timestamptz(3) not null,
  -- English finds other forms of a word (mugs, mug); simple keeps words whole, so that the start of one finds it.
  search tsvector generated always as (
    setweight(to_tsvector('simple', name || ' ' || sku), 'A') || setweight(to_tsvector('english', name), 'A') ||
    setweight(to_tsvector('simple', category), 'B') || setweight(to_tsvector('english', category), 'B') ||
    setweight(to_tsvector('english', description), 'C')
  ) stored
);
create unique index product_sku_key on product (sku);
create index product_category_id_idx on product (category, id);
create index product_search_idx on product using gin (search);
