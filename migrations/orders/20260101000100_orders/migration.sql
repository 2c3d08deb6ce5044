-- No foreign keys: when the context moves, its rows are copied table by table, children sometimes first.
-- Lines are only ever written in the statement that writes, or under the lock of, the row they belong to.

-- What the cart and new orders know of products: a copy of our own, fed by catalog's events.
create table product (
  sku text primary key,
  product_id uuid not null,
  name text not null,
  price bigint not null check (price >= 0),
  currency char(3) not null,
  -- Version of the product in the event that was copied: an older event changes nothing.
  version bigint not null
);

-- Its row lock puts everything that happens to one cart in a row.
create table cart (
  customer_id uuid primary key,
  version integer not null,
  updated_at timestamptz(3) not null
);

create table cart_line (
  customer_id uuid not null,
  sku text not null,
  quantity integer not null check (quantity > 0),
  added_at timestamptz(3) not null,
  primary key (customer_id, sku)
);

create table orders (
  id uuid primary key,
  customer_id uuid not null,
  status text not null check (status in ('pending', 'confirmed', 'shipped', 'delivered', 'rejected', 'cancelled')),
  reason text check ((reason is not null) = (status = 'rejected')),
  total bigint not null check (total >= 0),
  currency char(3) not null,
  shipping_address jsonb not null,
  created_at timestamptz(3) not null,
  updated_at timestamptz(3) not null
);

-- Prices are in the currency of the order, as they were when it was placed.
create table order_line (
  order_id uuid not null,
  position integer not null,
  sku text not null,
  product_name text not null,
  quantity integer not null check (quantity > 0),
  unit_price bigint not null check (unit_price >= 0),
  primary key (order_id, position)
);

-- The read model: all that one screen shows of an order in one row, so that reading it is one statement.
create table order_view (
  order_id uuid primary key,
  customer_id uuid not null,
  status text not null,
  reason text,
  -- [{sku, productName, quantity, unitPrice}]
  items jsonb not null,
  total bigint not null,
  currency char(3) not null,
  shipping_address jsonb not null,
  -- {id, status} | null
  payment jsonb,
  -- {id, status, trackingNumber} | null
  shipment jsonb,
  created_at timestamptz(3) not null
);
-- Ids sort by the time they were made, so this is a customer's list, newest first.
create index order_view_customer on order_view (customer_id, order_id desc);
