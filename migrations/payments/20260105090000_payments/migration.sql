-- What happened to each payment, in order. The truth; everything else here can be made from it.
CREATE TABLE payment_event (
  id         uuid           NOT NULL,
  payment_id uuid           NOT NULL,
  version    integer        NOT NULL,
  type       text           NOT NULL,
  data       jsonb          NOT NULL,
  at         timestamptz(3) NOT NULL,
  CONSTRAINT payment_event_pkey PRIMARY KEY (id),
  CONSTRAINT payment_event_payment_id_version_key UNIQUE (payment_id, version)
);

-- The snapshot: the events of a payment folded up to `version`, written in the transaction that appends them.
CREATE TABLE payment (
  id           uuid           NOT NULL,
  order_id     uuid           NOT NULL,
  -- Null for an order that was cancelled before anybody asked for its money.
  customer_id  uuid,
  status       text           NOT NULL,
  currency     char(3),
  amount       bigint         NOT NULL,
  authorised   bigint         NOT NULL,
  captured     bigint         NOT NULL,
  refunded     bigint         NOT NULL,
  -- Refunds that are promised and that the provider has not yet answered.
  set_aside    bigint         NOT NULL,
  provider_ref text,
  action_url   text,
  reason       text,
  cancelled    boolean        NOT NULL,
  -- Voids and refunds, asked for and answered.
  intents      jsonb          NOT NULL,
  version      integer        NOT NULL,
  created_at   timestamptz(3) NOT NULL,
  -- From when on the provider is to be asked about this payment; null when nothing is open.
  due_at       timestamptz(3),
  CONSTRAINT payment_pkey PRIMARY KEY (id),
  CONSTRAINT payment_order_id_key UNIQUE (order_id),
  CONSTRAINT payment_amounts_check CHECK (
    0 <= refunded AND 0 <= set_aside AND refunded + set_aside <= captured
    AND captured <= authorised AND authorised <= amount
  ),
  CONSTRAINT payment_status_check CHECK (status IN (
    'requires_action', 'authorised', 'declined', 'captured', 'partially_refunded', 'refunded', 'voided', 'cancelled'
  ))
);
CREATE UNIQUE INDEX payment_provider_ref_key ON payment (provider_ref);
CREATE INDEX payment_due_at_idx ON payment (due_at, id) WHERE due_at IS NOT NULL;

-- Double entry: debits are positive, credits negative; the accounts stand in domain/ledger.ts.
CREATE TABLE ledger_entry (
  id             uuid           NOT NULL,
  -- The id of the payment event that moved the money.
  transaction_id uuid           NOT NULL,
  payment_id     uuid           NOT NULL,
  account        text           NOT NULL,
  amount         bigint         NOT NULL,
  currency       char(3)        NOT NULL,
  at             timestamptz(3) NOT NULL,
  CONSTRAINT ledger_entry_pkey PRIMARY KEY (id),
  CONSTRAINT ledger_entry_amount_check CHECK (amount <> 0),
  CONSTRAINT ledger_entry_account_check CHECK (account IN (
    'customer_receivable', 'authorised_funds', 'merchant_cash', 'refunds_payable'
  ))
);
CREATE INDEX ledger_entry_payment_id_idx ON ledger_entry (payment_id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER payment_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON payment_event
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Every insert statement balances by itself, so the ledger sums to zero at every instant. Checked once per statement:
-- a deferred constraint trigger would run once per row, at commit.
CREATE FUNCTION refuse_imbalance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  wrong record;
BEGIN
  SELECT transaction_id, currency, sum(amount) AS total INTO wrong
    FROM new_entry GROUP BY transaction_id, currency HAVING sum(amount) <> 0 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'Ledger transaction % is off by % %', wrong.transaction_id, wrong.total, wrong.currency
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER ledger_entry_balanced AFTER INSERT ON ledger_entry
  REFERENCING NEW TABLE AS new_entry
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_imbalance();
