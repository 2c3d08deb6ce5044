import { type Queryable, literal, quoted } from './connection.js';
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
  /** The stream of NATS that the slot feeds: what it has let go of is there, whatever a target has of it. */
  feeds: string | undefined;
}

/* A comment on the publication, in front of the name of what the slot feeds. */
const FEEDS = 'banyan log ';

export async function readSlot(source: Queryable, name: string): Promise<SourceLog> {
  const { rows } = await source.query<{
    now: string;
    published: boolean;
    feeds: string | null;
    confirmed: string | null;
    active: boolean;
    pid: number | null;
    status: string | null;
    retained: string | null;
    keep: string;
  }>(
    `select (pg_current_wal_insert_lsn() - '0/0')::text as now,
            p.oid is not null as published,
            substring(obj_description(p.oid, 'pg_publication') from '^${FEEDS}(.+)$') as feeds,
            (s.confirmed_flush_lsn - '0/0')::text as confirmed, s.active, s.active_pid as pid, s.wal_status as status,
            (pg_current_wal_insert_lsn() - s.restart_lsn)::text as retained,
            (select setting from pg_settings where name = 'max_slot_wal_keep_size') as keep
       from (select) as one left join pg_publication p on p.pubname = $1
         left join pg_replication_slots s on s.slot_name = $1 and s.database = current_database()`,
    [name],
  );
  const row = rows[0]!;
  return {
    now: BigInt(row.now),
    published: row.published,
    feeds: row.feeds ?? undefined,
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
 * Notes what the slot feeds, if not the target itself; for whoever has the slot, before it lets go of anything. Beside
 * the slot and not with a mark: targets may be away.
 */
export async function noteFeeds(source: Queryable, name: string, log: string | undefined): Promise<void> {
  const comment = log === undefined ? 'null' : literal(`${FEEDS}${log}`);
  // Waits for the disk: it must not be lost while what the slot was told stays.
  await source.query(`set synchronous_commit = local; comment on publication ${quoted(name)} is ${comment}`);
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
