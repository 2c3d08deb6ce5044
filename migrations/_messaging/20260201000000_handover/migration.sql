-- The moves of a hand-over (docs/protocol.md). Each is a compare-and-set on the one row of this database, so a caller who
-- was delayed for an hour does no harm: it is refused. They carry their own search path, because those who may
-- run them (the control plane, the bridge) come as superuser; the roles of contexts may not (platform/database/migrate.ts).
-- Each is on disk when its caller hears of it, whatever the server's default is: a bar that a crash undoes would let both
-- sides open, and the log is read only as far as it is flushed, so that everybody would wait for the WAL writer.

-- Ends this side's time as the owner, if it is the owner at `expected`: waits for running commands (the fence holds the
-- same lock, shared), lets none in after, and writes the message that opens the other side into the log, behind all
-- of this side's writes. Gives the epoch of the hand-over, or null when there was nothing to close.
create function banyan_close(expected bigint, "to" text) returns bigint language plpgsql volatile
set search_path from current
-- Commands that come meanwhile wait behind this one.
set lock_timeout = '1s' as $$
declare
  closed bigint;
begin
  perform set_config('synchronous_commit', 'on', true);
  perform pg_advisory_xact_lock(hashtextextended('banyan.owner.' || current_schema(), 0));
  update banyan_owner set open = false, epoch = expected + 1, changed_at = clock_timestamp()
    where open and epoch = expected and side <> "to" returning epoch into closed;
  if closed is not null then
    perform pg_logical_emit_message(
      true, 'banyan.handover', json_build_object('context', current_schema(), 'epoch', closed, 'to', "to")::text);
  end if;
  return closed;
end $$;

-- Opens this side. Called by the bridge in the transaction that moves its mark past the message, so with all that
-- the other side wrote. A message that comes again, or whose hand-over was called off, is refused.
create function banyan_open(opened bigint) returns boolean language plpgsql volatile
set search_path from current as $$
declare
  side_opened text;
begin
  perform set_config('synchronous_commit', 'on', true);
  update banyan_owner set open = true, epoch = opened, changed_at = clock_timestamp()
    where not open and epoch < opened and min_epoch <= opened returning side into side_opened;
  if side_opened is null then
    return false;
  end if;
  perform pg_notify('banyan_owner',
    json_build_object('context', current_schema(), 'side', side_opened, 'epoch', opened)::text);
  return true;
end $$;

-- Calls a hand-over off, first half: from now on this side refuses to open below `below`. Gives false when it is too
-- late. It looks at the epoch and not at `open`: a side that opened and has closed again since was the owner, too, and
-- what it wrote may still be on its way.
create function banyan_bar(below bigint) returns boolean language plpgsql volatile
set search_path from current set lock_timeout = '1s' as $$
begin
  perform set_config('synchronous_commit', 'on', true);
  update banyan_owner set min_epoch = greatest(min_epoch, below), changed_at = clock_timestamp()
    where not open and epoch < below - 1;
  return found;
end $$;

-- Second half, and only after the first has succeeded on the other side: opens this side again, if it is still as the
-- hand-over closed it.
create function banyan_reopen(closed_at bigint) returns boolean language plpgsql volatile
set search_path from current set lock_timeout = '1s' as $$
declare
  side_opened text;
begin
  perform set_config('synchronous_commit', 'on', true);
  update banyan_owner set open = true, epoch = closed_at + 1, changed_at = clock_timestamp()
    where not open and epoch = closed_at returning side into side_opened;
  if side_opened is null then
    return false;
  end if;
  perform pg_notify('banyan_owner',
    json_build_object('context', current_schema(), 'side', side_opened, 'epoch', closed_at + 1)::text);
  return true;
end $$;
