import { randomBytes } from 'node:crypto';
import { eventually } from '@banyan/testing';
import pg from 'pg';

/** Two empty databases on one server, as the monolith's and the service's sides of a context. */
export class Pair {
  readonly clients: Readonly<Record<'monolith' | 'service', pg.Pool>>;

  private constructor(
    private readonly serverUrl: string,
    readonly urls: Record<'monolith' | 'service', string>,
  ) {
    const pool = (connectionString: string) => {
      const made = new pg.Pool({ connectionString, max: 8 });
      made.on('error', () => {});
      return made;
    };
    this.clients = { monolith: pool(urls.monolith), service: pool(urls.service) };
  }

  static async on(serverUrl: string): Promise<Pair> {
    // The name of a test database: what a killed run leaves behind is swept.
    const name = `banyan_test_${Date.now().toString(36)}_${randomBytes(4).toString('hex')}`;
    const url = (side: string) => Object.assign(new URL(serverUrl), { pathname: `/${name}${side}` }).href;
    await onServer(serverUrl, `create database ${name}m`, `create database ${name}s`);
    return new Pair(serverUrl, { monolith: url('m'), service: url('s') });
  }

  async on<R extends pg.QueryResultRow>(side: 'monolith' | 'service', text: string, values?: unknown[]): Promise<R[]> {
    return (await this.clients[side].query<R>(text, values)).rows;
  }

  async onBoth(text: string): Promise<void> {
    await this.on('monolith', text);
    await this.on('service', text);
  }

  /** One line per table: how many rows, and what all of them together come to. */
  async sums(side: 'monolith' | 'service', schema: string, tables: readonly string[]): Promise<string[]> {
    const sums = tables.map(async (table) => {
      const rows = await this.on<{ sum: string }>(
        side,
        `select count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' order by md5(t::text))), '-') as sum
           from ${schema}.${table} t`,
      );
      return `${table} ${rows[0]?.sum}`;
    });
    return Promise.all(sums);
  }

  async drop(): Promise<void> {
    await Promise.all(Object.values(this.clients).map((pool) => pool.end()));
    for (const url of Object.values(this.urls)) {
      const drop = `select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()`;
      // Whoever had a slot and was killed lets go of it a moment later.
      await eventually(() => onServer(url, drop).then(() => true), { timeoutMs: 20_000 });
      await onServer(this.serverUrl, `drop database ${new URL(url).pathname.slice(1)} with (force)`);
    }
  }
}

async function onServer(connectionString: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
