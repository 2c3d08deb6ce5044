CREATE TABLE user_account (
  id         uuid           PRIMARY KEY,
  email      text           NOT NULL,
  name       text           NOT NULL,
  roles      text[]         NOT NULL,
  created_at timestamptz(3) NOT NULL,
  -- One account per address, however it is written: the contract lowers it, this holds it to that.
  CONSTRAINT user_account_email_lower CHECK (email = lower(email))
);
CREATE UNIQUE INDEX user_account_email_key ON user_account (email);

-- Apart from the account, so that reading a user never reads a hash.
CREATE TABLE credential (
  user_id       uuid           PRIMARY KEY REFERENCES user_account (id),
  password_hash text           NOT NULL,
  changed_at    timestamptz(3) NOT NULL
);

-- A family of refresh tokens. expires_at moves with each rotation and never passes ends_at.
CREATE TABLE session (
  id         uuid           PRIMARY KEY,
  user_id    uuid           NOT NULL REFERENCES user_account (id),
  opened_at  timestamptz(3) NOT NULL,
  expires_at timestamptz(3) NOT NULL,
  ends_at    timestamptz(3) NOT NULL,
  revoked_at timestamptz(3)
);
CREATE INDEX session_expires_at_idx ON session (expires_at);

-- Used tokens stay as long as their session: that is how a stolen one is noticed.
CREATE TABLE refresh_token (
  token_hash text           PRIMARY KEY,
  session_id uuid           NOT NULL REFERENCES session (id),
  issued_at  timestamptz(3) NOT NULL,
  expires_at timestamptz(3) NOT NULL,
  used_at    timestamptz(3)
);
CREATE INDEX refresh_token_session_id_idx ON refresh_token (session_id);

CREATE TABLE signing_key (
  kid                text           PRIMARY KEY,
  public_jwk         jsonb          NOT NULL,
  sealed_private_jwk text           NOT NULL,
  -- The key before this one; the first has ''. Unique, so that of many starters one makes the next key.
  replaces           text           NOT NULL,
  created_at         timestamptz(3) NOT NULL,
  sign_from          timestamptz(3) NOT NULL,
  -- Null on the newest key.
  publish_until      timestamptz(3)
);
CREATE UNIQUE INDEX signing_key_replaces_key ON signing_key (replaces);
