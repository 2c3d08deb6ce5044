import { EmbeddedPostgres } from '@banyan/platform/database';
import pg from 'pg';
import { testDatabaseUrl, testStateDir } from './settings.js';

/* Made by a test run and left behind when it was killed. */
const STALE_AFTER_MS = 60 * 60 * 1000;

export interface TestServer {
  adminUrl: string;
  stop(): Promise<void>;
}

/**
 * The Postgres of the specs: BANYAN_TEST_DATABASE_URL, or an embedded one that all test runs of this checkout share.
 * It keeps its data between runs, so the template databases are there already; the last run to end stops it.
 */
export async function startTestServer(): Promise<TestServer> {
  if (testDatabaseUrl) {
    await dropStaleDatabases(testDatabaseUrl);
    return { adminUrl: testDatabaseUrl, stop: async () => {} };
  }
  const server = await EmbeddedPostgres.start({
    stateDir: testStateDir,
    port: 54_330,
    shared: true,
    // Nothing here has to outlive a power cut.
    settings: ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off', 'max_connections=400'],
  });
  await dropStaleDatabases(server.url);
  return { adminUrl: server.url, stop: () => server.stop() };
}

async function dropStaleDatabases(adminUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: adminUrl });
  await client.connect();
  try {
    const { rows } = await client.query<{ datname: string }>(
      `select datname from pg_database d where datname like 'banyan\\_test\\_%'
          and not exists (select from pg_stat_activity a where a.datname = d.datname)`,
    );
    for (const { datname } of rows) {
      const madeAt = parseInt(datname.split('_')[2] ?? '', 36);
      // Another run may drop it, too.
      if (Date.now() - madeAt > STALE_AFTER_MS)
        await client.query(`drop database if exists ${datname}`).catch(() => {});
    }
  } finally {
    await client.end();
  }
}
