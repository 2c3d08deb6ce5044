import { setTimeout as pause } from 'node:timers/promises';
import { type ConsistencyToken, lsnNumber } from '@banyan/kernel';
import type { Database } from '@banyan/platform/database';
import { streamPattern } from './protocol/index.js';

/** How long a read waits for the caller's last write before the owner is asked instead, ms. */
const WAIT = 50;
const POLL = 5;

/* The bridge keeps its mark in the database that it writes to. Where there has never been one, there is no table. */
const looked = `
  select (select epoch from banyan_owner) as epoch,
    case when exists (select from pg_namespace where nspname = 'banyan_replication' and has_schema_privilege(oid, 'usage'))
      then to_regclass('banyan_replication.mark') is not null else false end as bridged`;
/* One row; if a database that was the source before has left its mark here, that must not speak for the one of now. */
const marked = `select min(lsn)::text as lsn from banyan_replication.mark where stream ~ $1`;

/**
 * Does this side's database have what the token speaks of, a write on the other side? It has when it has been opened since,
 * and when the bridge has applied the log that far. Waits for the bridge, 50 ms at most.
 */
export async function applied(db: Database, { side, epoch, lsn }: ConsistencyToken): Promise<boolean> {
  const { rows } = await db.query<{ epoch: number; bridged: boolean }>(looked);
  const here = rows[0];
  if (!here) return false;
  if (here.epoch > epoch) return true;
  if (!lsn || !here.bridged) return false;
  const wanted = lsnNumber(lsn);
  const stream = streamPattern(db.context, side);
  for (const end = performance.now() + WAIT; ;) {
    const mark = (await db.query<{ lsn: string | null }>(marked, [stream])).rows[0]?.lsn;
    if (mark && lsnNumber(mark) >= wanted) return true;
    if (performance.now() + POLL > end) return false;
    await pause(POLL);
  }
}
