import type { Queryable } from './connection.js';

/** Whose log it is. Positions of another server, or of one that went on from a backup, look like ours and mean something else. */
export interface History {
  /** Server and slot. */
  source: string;
  /** Another one after each failover, and after each return to a backup. */
  timeline: number;
}

export async function historyOf(source: Queryable, slot: string): Promise<History> {
  const { rows } = await source.query<History>(
    // What IDENTIFY_SYSTEM tells, without a replication connection.
    `select system_identifier || '/' || $1 as source,
            ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int as timeline
       from pg_control_system()`,
    [slot],
  );
  return rows[0]!;
}
