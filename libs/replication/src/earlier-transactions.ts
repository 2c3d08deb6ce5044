import type pg from 'pg';

/**
 * The transactions that run now in this database. An earlier run of the stream may have applied one of them already,
 * when its commit is in the log and it cannot be seen yet; nothing may be copied before all of them have ended. Those of
 * other databases write nothing here; but who is not allowed to see whose a transaction is has to wait for them, too.
 */
export class EarlierTransactions {
  private constructor(
    private readonly running: ReadonlySet<string> | undefined,
    private readonly floor: string,
  ) {}

  static async now(source: pg.ClientBase): Promise<EarlierTransactions> {
    const { rows } = await source.query<{ mayLook: boolean; floor: string }>(
      `select pg_has_role('pg_read_all_stats', 'usage') as "mayLook", pg_current_xact_id()::text as floor`,
    );
    const { mayLook, floor } = rows[0]!;
    return new EarlierTransactions(mayLook ? new Set(await runningIn(source)) : undefined, floor);
  }

  async haveEnded(source: pg.ClientBase): Promise<boolean> {
    if (this.running) {
      if (this.running.size === 0) return true;
      return (await runningIn(source)).every((xid) => !this.running?.has(xid));
    }
    const { rows } = await source.query<{ ended: boolean }>(
      'select pg_snapshot_xmin(pg_current_snapshot())::text::numeric >= $1 as ended',
      [this.floor],
    );
    return rows[0]?.ended === true;
  }
}

async function runningIn(source: pg.ClientBase): Promise<string[]> {
  const { rows } = await source.query<{ xid: string }>(
    `select backend_xid::text as xid from pg_stat_activity
      where backend_xid is not null and datname = current_database() and pid <> pg_backend_pid()
     union all select transaction::text from pg_prepared_xacts where database = current_database()`,
  );
  return rows.map(({ xid }) => xid);
}
