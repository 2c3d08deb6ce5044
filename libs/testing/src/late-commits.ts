import type pg from 'pg';
import { eventually } from './eventually.js';

type Query = (text: string) => Promise<pg.QueryResult['rows']>;

/**
 * While `work` goes on, commits that wait for a standby wait for one that does not exist: they are in the log, and not
 * visible to anybody. It is a setting of the whole server that `query` asks, which therefore is the spec's own and runs
 * with `synchronous_commit=local`: only those who ask for more wait. `work` is given what lets them go.
 */
export async function amidLateCommits(query: Query, work: (release: () => Promise<void>) => Promise<void>) {
  const standby = async (change: string) => {
    await query(`alter system ${change}`);
    await query('select pg_reload_conf()');
  };
  const release = () => standby('reset synchronous_standby_names');
  try {
    await standby(`set synchronous_standby_names = 'nobody'`);
    await eventually(() => isWaitedFor(query));
    await work(release);
  } finally {
    await release();
  }
}

/** Whether a commit waits by now: one process takes the setting in for all, at a time of its own, and shows it nowhere. */
async function isWaitedFor(query: Query): Promise<boolean> {
  let [over, waited] = [false, false];
  const commit = query(
    `select set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'banyan.spec', '')`,
  ).finally(() => (over = true));
  // Cancelled, it stands, and its wait is over.
  const cancel = `select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`;
  while (!over && !waited) waited = (await query(cancel)).length > 0;
  await commit;
  return waited;
}
