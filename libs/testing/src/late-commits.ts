import type pg from 'pg';
import { eventually } from './eventually.js';

type Rows = pg.QueryResult['rows'];

/**
 * While `work` goes on, commits that wait for a standby wait for one that does not exist: they are in the log, and not
 * visible to anybody. It is a setting of the whole server that `query` asks, which therefore is the spec's own and runs
 * with `synchronous_commit=local`: only those who ask for more wait. `work` is given what lets them go.
 */
export async function amidLateCommits(
  query: (text: string) => Promise<Rows>,
  work: (release: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const standby = async (change: string, then: string) => {
    await query(`alter system ${change}`);
    await query('select pg_reload_conf()');
    await eventually(
      async () => (await query('show synchronous_standby_names'))[0]?.synchronous_standby_names === then,
    );
  };
  const release = () => standby('reset synchronous_standby_names', '');
  try {
    await standby(`set synchronous_standby_names = 'nobody'`, 'nobody');
    await work(release);
  } finally {
    await release();
  }
}
