import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { contracts } from '@banyan/contracts';
import { Database, ensureContextDatabases, readMigrations, roleUrl } from '@banyan/platform/database';
import pg from 'pg';
import { afterAll, beforeAll, inject } from 'vitest';
import { migrationsDir } from './settings.js';

export const contextNames: readonly string[] = contracts.map((contract) => contract.name);

/*
 * Templates kept: this many, the newest. Each edit of a migration makes a new one, and there is one for each set of
 * contexts that specs ask for: with fewer, spec files that run at the same time drop each other's.
 */
const TEMPLATES_KEPT = 24;

/** A database of its own, cloned from the migrated template; every context's schema and role is in it. */
export interface TestDatabase {
  /** The superuser's URL. */
  readonly adminUrl: string;
  /** One URL per context, as ensureContextDatabases gives them. */
  readonly urls: Readonly<Record<string, string>>;
  /** The Database of one context, as the app has it; made on first use, closed when the test database is dropped. */
  database(context: string): Database;
  /** Runs a statement as superuser, for a look at rows or for breaking something. */
  admin<R extends pg.QueryResultRow = Record<string, unknown>>(text: string, values?: unknown[]): Promise<R[]>;
  /** Drops it. Throws when somebody still holds a connection: a leak in the spec or in the code. */
  drop(): Promise<void>;
}

export interface TestDatabaseOptions {
  /** The contexts to have; all by default. */
  contexts?: readonly string[];
}

/**
 * A test database for the spec file (or describe block) that calls this at its top: made before the tests, dropped
 * after them. Its members may be used inside of hooks and tests.
 */
export function testDatabase(options: TestDatabaseOptions = {}): TestDatabase {
  let made: TestDatabase | undefined;
  const current = (): TestDatabase => {
    if (!made) throw new Error('The test database exists inside of hooks and tests only');
    return made;
  };
  beforeAll(async () => {
    made = await createTestDatabase(inject('adminUrl'), options);
  });
  afterAll(() => made?.drop());
  return {
    get adminUrl() {
      return current().adminUrl;
    },
    get urls() {
      return current().urls;
    },
    database: (context) => current().database(context),
    admin: (text, values) => current().admin(text, values),
    drop: () => current().drop(),
  };
}

/** The same for code that is no spec (a benchmark, the chaos run): the caller drops it. */
export async function createTestDatabase(serverUrl: string, options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const contexts = options.contexts ?? contextNames;
  const template = await ensureTemplate(serverUrl, contexts);
  const name = `banyan_test_${Date.now().toString(36)}_${randomBytes(5).toString('hex')}`;
  await onServer(serverUrl, (client) => client.query(`create database ${name} template ${template}`));
  return new ClonedDatabase(serverUrl, name, contexts);
}

class ClonedDatabase implements TestDatabase {
  readonly adminUrl: string;
  readonly urls: Readonly<Record<string, string>>;
  readonly #databases = new Map<string, Database>();
  readonly #admin: pg.Pool;

  constructor(
    private readonly serverUrl: string,
    private readonly name: string,
    contexts: readonly string[],
  ) {
    this.adminUrl = databaseUrl(serverUrl, name);
    this.urls = Object.fromEntries(contexts.map((context) => [context, roleUrl(this.adminUrl, context)]));
    this.#admin = new pg.Pool({ connectionString: this.adminUrl, max: 2, application_name: 'spec admin' });
    this.#admin.on('error', () => {}); // a spec that cuts connections cuts this one, too
  }

  database(context: string): Database {
    let database = this.#databases.get(context);
    if (!database) {
      const url = this.urls[context];
      if (!url) throw new Error(`This test database has no context ${context}`);
      database = new Database({ context, url, max: 10, connectTimeoutMs: 60_000 });
      this.#databases.set(context, database);
    }
    return database;
  }

  async admin<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]> {
    return (await this.#admin.query<R>(text, values)).rows;
  }

  async drop(): Promise<void> {
    await Promise.all([this.#admin.end(), ...[...this.#databases.values()].map((database) => database.close())]);
    await onServer(this.serverUrl, async (client) => {
      const leaked = await this.#leftConnections(client);
      await client.query(`drop database ${this.name} with (force)`);
      if (leaked.length > 0) throw new Error(`Connections were left open:\n${leaked.join('\n')}`);
    });
  }

  /** Postgres notices a closed connection a moment later, so a connection counts as left only after some time. */
  async #leftConnections(client: pg.Client): Promise<string[]> {
    for (const deadline = Date.now() + 15_000; ;) {
      const { rows } = await client.query<{ told: string }>(
        `select concat_ws(' · ', application_name, usename, state, left(query, 200)) as told
           from pg_stat_activity where datname = $1 and backend_type = 'client backend'`,
        [this.name],
      );
      if (rows.length === 0 || Date.now() > deadline) return rows.map((row) => row.told);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

const known = new Map<string, Promise<string>>();

/** The name of the template database with these contexts migrated; made by the first who asks, in whichever process. */
async function ensureTemplate(serverUrl: string, contexts: readonly string[]): Promise<string> {
  const migrations = await Promise.all(
    contexts.map(async (context) => [context, await readMigrations(foldersOf(context))] as const),
  );
  const content = migrations.flatMap(([context, all]) => [context, ...all.map((m) => `${m.name} ${m.checksum}`)]);
  // The layout of this very template code is in the name as well: 1.
  const name = `banyan_template_${createHash('sha256')
    .update(`1\n${content.join('\n')}`)
    .digest('hex')
    .slice(0, 16)}`;
  let ready = known.get(name);
  if (!ready) {
    ready = onServer(serverUrl, (client) => makeTemplate(client, serverUrl, name, contexts)).then(() => name);
    known.set(name, ready);
  }
  return ready;
}

async function makeTemplate(client: pg.Client, serverUrl: string, name: string, contexts: readonly string[]) {
  const exists = async () =>
    (await client.query('select from pg_database where datname = $1 and datistemplate', [name])).rowCount === 1;
  if (await exists()) return;
  await client.query(`select pg_advisory_lock(hashtextextended('banyan.template', 0))`);
  if (await exists()) return;
  await client.query(`drop database if exists ${name}`); // half made by a run that was killed
  await client.query(`create database ${name}`);
  await ensureContextDatabases({ adminUrl: databaseUrl(serverUrl, name), contexts, side: 'monolith', migrationsDir });
  await client.query(`alter database ${name} with is_template true allow_connections false`);

  const { rows } = await client.query<{ datname: string }>(
    `select datname from pg_database where datname like 'banyan\\_template\\_%' and datistemplate order by oid desc offset $1`,
    [TEMPLATES_KEPT],
  );
  for (const { datname } of rows) {
    await client.query(`alter database ${datname} with is_template false`);
    await client.query(`drop database ${datname}`).catch(() => {}); // being cloned right now: next time
  }
}

const foldersOf = (context: string) => [join(migrationsDir, '_messaging'), join(migrationsDir, context)];

function databaseUrl(serverUrl: string, database: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${database}`;
  return url.href;
}

async function onServer<T>(serverUrl: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: serverUrl });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
