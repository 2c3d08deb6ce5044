-- What every context's schema has for messaging. Applied with search_path = the context's schema.

-- Who may write this context's data. Exactly one side is open at any instant (docs/adr).
create table banyan_owner (
  one boolean primary key default true check (one),
  side text not null check (side in ('monolith', 'service')),
  open boolean not null,
  epoch bigint not null,
  min_epoch bigint not null default 0,
  changed_at timestamptz(3) not null
);

-- The fence: first statement of every writing transaction. The shared lock makes a change of owner wait for running
-- commands; the read after it sees the owner that the change left behind, because each statement of a volatile
-- function takes a new snapshot.
create function banyan_fence(caller text, expected bigint) returns bigint language plpgsql volatile as $$
declare
  owner banyan_owner;
begin
  perform pg_advisory_xact_lock_shared(hashtextextended('banyan.owner.' || current_schema(), 0));
  select * into owner from banyan_owner;
  if not found or not owner.open or owner.side <> caller or expected > owner.epoch then
    raise exception 'side % may not write %', caller, current_schema() using errcode = 'BN001';
  end if;
  return owner.epoch;
end $$;

-- One row per (event, subscriber): each subscriber fails, waits and parks on its own. An event that nobody
-- subscribes to has one row with subscriber '': it can still be published again.
create table outbox (
  event_id uuid not null,
  subscriber text not null,
  type text not null,
  type_version integer not null,
  aggregate text not null,
  version bigint not null,
  previous uuid,
  data jsonb not null,
  traceparent text,
  occurred_at timestamptz(3) not null,
  state text not null check (state in ('pending', 'parked', 'done')),
  attempts integer not null default 0,
  -- When it may be claimed; a claim moves it past the lease, so that a dead relay's work comes back by itself.
  due_at timestamptz(3) not null,
  last_error text,
  primary key (event_id, subscriber)
);
create index outbox_due on outbox (due_at, version) where state = 'pending';
create index outbox_parked on outbox (event_id) where state = 'parked';
-- Every row is changed twice and then never again.
alter table outbox set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

-- Takes what is due, the oldest first, out of the others' reach until the lease is over. By state, never by "id above the
-- last one": transactions commit out of order. Without bitmap scans, because what the planner believes of a
-- table that is empty most of the time is wrong when it matters: it sorted a backlog of 100,000 for every claim (60 ms),
-- and read the index entries of all that was done since the last vacuum.
create function banyan_claim(batch integer, lease_ms integer) returns table (
  event_id uuid, subscriber text, type text, aggregate text, version bigint, previous uuid, data jsonb, traceparent text,
  occurred_at timestamptz, attempts integer, previous_state text
) language plpgsql volatile set enable_bitmapscan = off set enable_seqscan = off as $$
#variable_conflict use_column
begin
  return query
  with due as (
    select event_id, subscriber from outbox
    where state = 'pending' and due_at <= now() order by due_at, version limit batch for update skip locked
  )
  update outbox o set due_at = now() + lease_ms * interval '1 ms', attempts = o.attempts + 1
  from due d
  where o.event_id = d.event_id and o.subscriber = d.subscriber
  returning o.event_id, o.subscriber, o.type, o.aggregate, o.version, o.previous, o.data, o.traceparent, o.occurred_at,
    o.attempts, (select p.state from outbox p where p.event_id = o.previous and p.subscriber = o.subscriber);
end $$;

-- Last version and last event per subscriber of each aggregate. Its row lock makes version order commit order.
create table outbox_head (
  aggregate text primary key,
  version bigint not null,
  last jsonb not null,
  before jsonb
);

-- events: [{id, type, type_version, aggregate, data, traceparent, at, subscribers: [text]}], in the order they happened.
create function banyan_emit(events jsonb) returns void language plpgsql volatile as $$
begin
  with event as (
    select (e.value ->> 'id')::uuid as id, e.value ->> 'type' as type, (e.value ->> 'type_version')::int as type_version,
      e.value ->> 'aggregate' as aggregate, e.value -> 'data' as data, e.value ->> 'traceparent' as traceparent,
      (e.value ->> 'at')::timestamptz as at, e.value -> 'subscribers' as subscribers, e.ordinality as ord
    from jsonb_array_elements(events) with ordinality e
  ),
  latest as (
    select distinct on (e.aggregate, s.name) e.aggregate, s.name, e.id
    from event e cross join lateral jsonb_array_elements_text(e.subscribers) s(name)
    order by e.aggregate, s.name, e.ord desc
  ),
  head as (
    insert into outbox_head as h (aggregate, version, last)
    select e.aggregate, count(*), coalesce(l.by_name, '{}')
    from event e
    -- Joined, not looked up per aggregate: that was quadratic, 150 ms for 1,000 events of 1,000 aggregates.
    left join (select aggregate, jsonb_object_agg(name, id) as by_name from latest group by aggregate) l using (aggregate)
    group by e.aggregate, l.by_name order by e.aggregate
    on conflict (aggregate) do update
      set version = h.version + excluded.version, last = h.last || excluded.last, before = h.last
    returning aggregate, version, before
  ),
  numbered as (
    select e.*, h.before,
      h.version - count(*) over (partition by e.aggregate) + row_number() over (partition by e.aggregate order by e.ord) as version
    from event e join head h using (aggregate)
  )
  insert into outbox (event_id, subscriber, type, type_version, aggregate, version, previous, data, traceparent, occurred_at, state, due_at)
  select n.id, coalesce(s.name, ''), n.type, n.type_version, n.aggregate, n.version,
    case when s.name is not null then
      coalesce(lag(n.id) over (partition by n.aggregate, s.name order by n.ord), (n.before ->> s.name)::uuid)
    end,
    n.data, n.traceparent, n.at, case when s.name is null then 'done' else 'pending' end, n.at
  from numbered n left join lateral jsonb_array_elements_text(n.subscribers) s(name) on true;
end $$;

-- What this context has taken from others: the unique row, in the effect's transaction, is what makes it once.
create table inbox (
  event_id uuid primary key,
  type text not null,
  received_at timestamptz(3) not null
);

create table idempotency_key (
  actor text not null,
  operation text not null,
  key text not null,
  request_hash text not null,
  output text not null,
  created_at timestamptz(3) not null,
  primary key (actor, operation, key)
);
create index idempotency_key_age on idempotency_key (created_at);

create table saga (
  type text not null,
  id uuid not null,
  state text not null,
  data jsonb not null,
  -- Signals that came before the saga waited for them: {step: {done: facts} | {refused: reason}}
  signals jsonb not null default '{}',
  reason text,
  attempts integer not null default 0,
  due_at timestamptz(3),
  deadline_at timestamptz(3),
  created_at timestamptz(3) not null,
  updated_at timestamptz(3) not null,
  last_error text,
  primary key (type, id)
);
create index saga_due on saga (due_at) where due_at is not null;

-- The end of every writing transaction: what messaging itself keeps, in one statement. Each argument may be null.
-- keys: rows of idempotency_key. sagas: rows of saga, as they are to be.
create function banyan_finish(events jsonb, keys jsonb, sagas jsonb) returns void language plpgsql volatile as $$
begin
  if keys is not null then
    insert into idempotency_key select * from jsonb_populate_recordset(null::idempotency_key, keys);
  end if;
  if sagas is not null then
    insert into saga (type, id, state, data, reason, attempts, due_at, deadline_at, created_at, updated_at)
    select type, id, state, data, reason, attempts, due_at, deadline_at, updated_at, updated_at
    from jsonb_populate_recordset(null::saga, sagas)
    on conflict (type, id) do update set state = excluded.state, data = excluded.data, reason = excluded.reason,
      attempts = excluded.attempts, due_at = excluded.due_at, deadline_at = excluded.deadline_at,
      updated_at = excluded.updated_at, last_error = null;
  end if;
  if events is not null then
    perform banyan_emit(events);
  end if;
end $$;
