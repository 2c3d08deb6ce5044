-- Our own copy of who is written to, fed by identity's events.
CREATE TABLE recipient (
  user_id uuid PRIMARY KEY,
  email   text NOT NULL,
  name    text NOT NULL
);

CREATE TABLE message (
  id       uuid           PRIMARY KEY,
  event_id uuid           NOT NULL,
  kind     text           NOT NULL,
  user_id  uuid           NOT NULL,
  order_id uuid,
  subject  text           NOT NULL,
  body     text           NOT NULL,
  sent_at  timestamptz(3) NOT NULL
);
CREATE UNIQUE INDEX message_event_id_kind_key ON message (event_id, kind);
CREATE INDEX message_user_id_id_idx ON message (user_id, id);
