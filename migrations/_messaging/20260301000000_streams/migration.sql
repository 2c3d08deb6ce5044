-- Events through streams of a broker (docs/adr). A delivery that a stream has taken is done, and remembers which one and
-- where: a broker's word is not a disk's, so what a stream loses before the subscriber has it becomes due again.

alter table outbox
  -- Null: no stream has it. 'direct': it came back from one, or fits into none, and is not to go there again. Else the
  -- incarnation of the stream that took it.
  add column via text,
  -- Its place in that stream.
  add column seq bigint;
create index outbox_streamed on outbox (subscriber, via, seq) where seq is not null;

-- The streams that have taken deliveries of this context, as its relays last saw them.
create table outbox_stream (
  subscriber text not null,
  -- When the stream was made: a stream of the same name that was made anew is another one.
  incarnation text not null,
  -- The subscriber has everything up to here.
  taken bigint not null,
  seen_at timestamptz(3) not null,
  primary key (subscriber, incarnation)
);

-- What a relay sees of a subscriber's stream; `seen` is null when there is none. What other streams have taken is due
-- again, unless the subscriber surely has it. So is what this one took shortly before it was last seen, and since, when
-- the broker may have crashed meanwhile (`doubtful`): it syncs its files every two minutes, and may have been away for
-- long. Harmless when wrong: the broker recognises what it has, and the inbox knows. Answers how many deliveries became due.
create function banyan_stream_seen(of_subscriber text, seen text, now_taken bigint, doubtful boolean)
returns bigint language plpgsql volatile as $$
declare
  elsewhere bigint;
  lost bigint := 0;
  before timestamptz;
begin
  if seen is not null then
    select s.seen_at into before from outbox_stream s where s.subscriber = of_subscriber and s.incarnation = seen;
    insert into outbox_stream as s values (of_subscriber, seen, now_taken, now())
    on conflict (subscriber, incarnation) do update
      set taken = greatest(s.taken, excluded.taken), seen_at = excluded.seen_at
      where s.taken < excluded.taken or s.seen_at < now() - interval '1 minute';
    if doubtful then
      update outbox o set state = 'pending', attempts = 0, due_at = now(), via = null, seq = null
        where o.subscriber = of_subscriber and o.via = seen and o.seq > now_taken and o.state = 'done'
          -- When it was settled.
          and o.due_at > coalesce(before, now()) - interval '3 minutes';
      get diagnostics lost = row_count;
    end if;
  end if;
  update outbox o set state = 'pending', attempts = 0, due_at = now(), via = null, seq = null
    from outbox_stream s
    where s.subscriber = of_subscriber and s.incarnation is distinct from seen
      and o.subscriber = of_subscriber and o.via = s.incarnation and o.seq > s.taken and o.state = 'done';
  get diagnostics elsewhere = row_count;
  -- A relay that has not heard yet may still settle deliveries with a stream that is gone.
  delete from outbox_stream s
    where s.subscriber = of_subscriber and s.incarnation is distinct from seen and s.seen_at < now() - interval '1 hour';
  return lost + elsewhere;
end $$;

-- As before, and tells which way a delivery has to go.
drop function banyan_claim(integer, integer);
create function banyan_claim(batch integer, lease_ms integer) returns table (
  event_id uuid, subscriber text, type text, aggregate text, version bigint, previous uuid, data jsonb, traceparent text,
  occurred_at timestamptz, attempts integer, previous_state text, via text
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
    o.attempts, (select p.state from outbox p where p.event_id = o.previous and p.subscriber = o.subscriber), o.via;
end $$;
