-- The owner row behind whoever is moving it. A commit is in the log, and so with the bridge, a moment before others can see
-- it; its lock is held until they can. The look comes in a statement of its own, so with a new snapshot.
create function banyan_settled(out open boolean, out epoch bigint) language plpgsql volatile
set search_path from current
-- Then the bridge opens its stream again at its mark, and meets the message once more.
set lock_timeout = '2s' as $$
begin
  perform pg_advisory_xact_lock_shared(hashtextextended('banyan.owner.' || current_schema(), 0));
  select o.open, o.epoch into open, epoch from banyan_owner o;
end $$;
