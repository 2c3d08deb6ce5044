-- What the control plane knows. The owner of a context is not here: that stands in banyan_owner, in the databases that
-- take the writes. Applied with search_path = control.

create table context_state (
  context text primary key,
  stage text not null check (stage in ('monolith', 'replicate', 'shadow', 'canary', 'live')),
  since timestamptz(3) not null,
  -- The last target that the flags told: holds while the flags cannot be asked.
  target text not null check (target in ('monolith', 'replicate', 'shadow', 'canary', 'live')),
  percent integer not null check (percent between 0 and 100),
  -- Who asked for the target, and why: goes into the transitions on the way to it.
  actor text not null,
  reason text not null,
  -- Gates are skipped on the way to this stage.
  force_to text,
  frozen boolean not null default false,
  -- A service database, streams or processes may exist: set before they are made, cleared when all of them are gone.
  outside boolean not null default false
);

create table transition (
  id bigint generated always as identity primary key,
  at timestamptz(3) not null,
  context text not null,
  "from" text not null,
  "to" text not null,
  actor text not null,
  reason text not null
);
create index transition_context on transition (context, id desc);

-- What the gates read when a stage was left.
create table evidence (
  id bigint generated always as identity primary key,
  at timestamptz(3) not null,
  context text not null,
  "from" text not null,
  "to" text not null,
  gates jsonb not null,
  divergences jsonb not null,
  forced boolean not null
);
create index evidence_context on evidence (context, id desc);

create table audit (
  id bigint generated always as identity primary key,
  at timestamptz(3) not null,
  actor text not null,
  action text not null,
  context text,
  detail jsonb not null,
  reason text
);

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only', tg_table_name using errcode = '42501';
end $$;
create trigger append_only before update or delete or truncate on audit for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on transition for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on evidence for each statement execute function refuse_change();

-- Revisions are handed out in blocks, so that a push to the routers waits for no disk; `contexts` is what was told last.
create table routing (
  one boolean primary key default true check (one),
  revision bigint not null,
  contexts jsonb not null
);
-- From the time of its making: routers that still keep the state of an earlier database believe this one.
insert into routing (revision, contexts) values ((extract(epoch from now()) * 1000)::bigint, '{}');

-- The last report of each instance. Figures are cumulative, so the last one is all there is to know.
create table report (
  instance text primary key,
  received_at timestamptz(3) not null,
  content jsonb not null
);

create table acknowledgement (
  context text not null,
  divergence text not null,
  at timestamptz(3) not null,
  actor text not null,
  reason text not null,
  primary key (context, divergence)
);
