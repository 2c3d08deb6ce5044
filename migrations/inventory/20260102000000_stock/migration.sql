-- The checks are the invariant: available (on_hand - reserved) + reserved + sold = received, and nothing below zero.
create table stock_item (
  sku text collate "C" primary key,
  on_hand bigint not null,
  -- The part of on_hand that is held for orders.
  reserved bigint not null,
  -- What left with orders, and what was put in over all time, less what was taken out by hand.
  sold bigint not null,
  received bigint not null,
  version bigint not null check (version >= 1),
  updated_at timestamptz(3) not null,
  constraint stock_item_reserved check (reserved >= 0 and reserved <= on_hand),
  constraint stock_item_sold check (sold >= 0),
  constraint stock_item_adds_up check (on_hand + sold = received)
);

-- One row per order. Its lines never change, so they stay in it. A row without lines remembers that an order was
-- released before it reserved anything.
create table reservation (
  order_id uuid primary key,
  status text not null check (status in ('held', 'committed', 'released', 'expired')),
  -- [{sku, quantity}], each SKU once, in SKU order
  lines jsonb not null,
  expires_at timestamptz(3) not null,
  created_at timestamptz(3) not null,
  updated_at timestamptz(3) not null
);
create index reservation_due on reservation (expires_at, order_id) where status = 'held';
