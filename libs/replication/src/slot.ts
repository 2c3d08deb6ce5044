import type { Queryable } from './connection.js';
import { ReplicationError } from './errors.js';
import { type Stream, lsnText } from './stream.js';

export interface Slot {
  /** Everything before it the server has been told to forget. */
  confirmed: bigint;
  active: boolean;
  activePid: number | null;
  /** `reserved`, `extended`, `unreserved`: it may be lost at the next checkpoint; `lost`. */
  walStatus: string | null;
  /** Log that the server keeps for it. */
  retainedBytes: number;
  /** How much it may keep at most; null: no limit. */
  keepBytes: number | null;
}

export interface SourceLog {
  now: bigint;
  slot: Slot | undefined;
  published: boolean;
}

export async function readSlot(source: Queryable, name: string): Promise<SourceLog> {
  const { rows } = await source.query<{
    now: string;
    published: boolean;
    confirmed: string | null;
    active: boolean;
    pid: number | null;
    status: string | null;
    retained: string | null;
    keep: string;
  }>(
    `select (pg_current_wal_insert_lsn() - '0/0')::text as now,
            exists (select from pg_publication where pubname = $1) as published,
            (s.confirmed_flush_lsn - '0/0')::text as confirmed, s.active, s.active_pid as pid, s.wal_status as status,
            (pg_current_wal_insert_lsn() - s.restart_lsn)::text as retained,
            (select setting from pg_settings where name = 'max_slot_wal_keep_size') as keep
       from (select) as one left join pg_replication_slots s on s.slot_name = $1 and s.database = current_database()`,
    [name],
  );
  const row = rows[0]!;
  return {
    now: BigInt(row.now),
    published: row.published,
    slot:
      row.active === null
        ? undefined
        : {
            confirmed: BigInt(row.confirmed ?? 0),
            active: row.active,
            activePid: row.pid,
            walStatus: row.status,
            retainedBytes: Number(row.retained ?? 0),
            keepBytes: Number(row.keep) < 0 ? null : Number(row.keep) * 1024 * 1024,
          },
  };
}

/**
 * Why the changes after the mark cannot all be had any more; undefined when they can. A slot that is missing, or further
 * on than the mark, is data loss until proven otherwise. `shared`: what the slot has let go of is in a shared log, and
 * whoever follows that one sees what is missing there.
 */
export function lossOf({ now, slot, published }: SourceLog, mark: bigint, shared = false): string | undefined {
  if (!slot) return 'the replication slot is gone from the source';
  if (slot.walStatus === 'lost')
    return 'the source has thrown away the log that the slot needed (max_slot_wal_keep_size), because the bridge was away too long';
  if (!published) return 'the publication is gone from the source';
  if (slot.confirmed > mark && !shared)
    return `the slot stands at ${lsnText(slot.confirmed)}, after the mark ${lsnText(mark)}`;
  if (mark > now)
    return `the source's log ends at ${lsnText(now)}, before the mark ${lsnText(mark)}: it was restored or replaced`;
  return undefined;
}

export const lost = (stream: Stream, reason: string): ReplicationError =>
  new ReplicationError(
    'STREAM_LOST',
    `Changes of ${stream.schema} may be missing in the target: ${reason}.`,
    'Prepare the stream again with a backfill.',
  );
