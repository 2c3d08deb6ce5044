CREATE TABLE shipment (
  id              uuid           NOT NULL,
  order_id        uuid           NOT NULL,
  -- Null, like address and items, for an order that was cancelled before anybody asked for its shipment.
  customer_id     uuid,
  status          text           NOT NULL,
  tracking_number text,
  address         jsonb,
  items           jsonb,
  created_at      timestamptz(3) NOT NULL,
  dispatched_at   timestamptz(3),
  delivered_at    timestamptz(3),
  cancelled_at    timestamptz(3),
  CONSTRAINT shipment_pkey PRIMARY KEY (id),
  CONSTRAINT shipment_order_id_key UNIQUE (order_id),
  CONSTRAINT shipment_tracking_number_key UNIQUE (tracking_number),
  CONSTRAINT shipment_status_check CHECK (status IN ('pending', 'dispatched', 'delivered', 'cancelled'))
);
-- What the simulated carrier looks through every second: only what is still on its way.
CREATE INDEX shipment_under_way_idx ON shipment (status, created_at) WHERE status IN ('pending', 'dispatched');
