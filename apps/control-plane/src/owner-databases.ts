import { EventEmitter } from 'node:events';
import { join } from 'node:path';
import { Logger } from '@nestjs/common';
import type { Side } from '@banyan/kernel';
import type { OwnerRow } from '@banyan/extraction/protocol';
import { type Config } from '@banyan/platform/config';
import { DatabaseUnavailableError, databaseFailure, migrate } from '@banyan/platform/database';
import pg from 'pg';
import { NotifyListener } from './notify-listener.js';

const migrationsDir = join(import.meta.dirname, '../../../migrations');

/** An owner row, and for how long it has been so by the clock of its own database. */
export interface SeenRow extends OwnerRow {
  readonly ageMs: number;
}
export interface SeenRows {
  monolith: SeenRow;
  /** null: there is no such database, or nothing in it. */
  service: SeenRow | null;
}

/** A database does not answer: nothing to decide, wait. */
export class DatabaseAway extends Error {
  override readonly name = 'DatabaseAway';
}

/** Not there (3D000), without the schema (3F000) or without the table (42P01). */
const MISSING = ['3D000', '3F000', '42P01'];

/**
 * The two databases of each context, as administrator: who owns what, and the moves of a hand-over. Every move is a
 * compare-and-set in the database that it changes.
 */
export class OwnerDatabases {
  private readonly log = new Logger('OwnerDatabases');
  private readonly pools = new Map<string, pg.Pool>();
  private readonly listeners = new Map<string, NotifyListener>();
  private readonly events = new EventEmitter();

  constructor(private readonly config: Config) {
    this.events.setMaxListeners(0);
  }

  url(context: string, side: Side): string {
    const { url: admin = '', contextUrls, serviceUrls } = this.config.database;
    if (side === 'monolith') return contextUrls[context] ?? admin;
    const own = serviceUrls[context];
    if (own) return own;
    const url = new URL(admin);
    url.pathname = `/banyan_${context.replaceAll('-', '_')}`;
    return url.href;
  }

  /** A side of this context was opened: called within a few ms when the databases are listened to. */
  onOpened(fn: (context: string) => void): () => void {
    this.events.on('opened', fn);
    return () => void this.events.off('opened', fn);
  }

  /** Hears of openings of this context from now on. */
  listen(context: string): void {
    for (const side of ['monolith', 'service'] as const) {
      const url = this.url(context, side);
      if (this.listeners.has(url)) continue;
      const listener = new NotifyListener(url, 'banyan_owner', (payload) => this.heard(payload));
      this.listeners.set(url, listener);
      listener.start();
    }
  }

  /** Both rows, one after the other. `withService` false: the other side is not looked for. */
  async rows(context: string, withService: boolean): Promise<SeenRows> {
    const [monolith, service] = await Promise.all([
      this.row(context, 'monolith'),
      withService ? this.row(context, 'service') : null,
    ]);
    if (!monolith) throw new DatabaseAway(`the monolith has not made the schema ${context} yet`);
    return { monolith, service };
  }

  async row(context: string, side: Side): Promise<SeenRow | null> {
    try {
      const { rows } = await this.ask<{ side: Side; open: boolean; epoch: string; min: string; age: number }>(
        context,
        side,
        `select side, open, epoch, min_epoch as min,
           (extract(epoch from clock_timestamp() - changed_at) * 1000)::float8 as age from ${schema(context)}.banyan_owner`,
      );
      const row = rows[0];
      if (!row) return null;
      const { open, epoch, min, age } = row;
      return { side: row.side, open, epoch: Number(epoch), minEpoch: Number(min), ageMs: age };
    } catch (error) {
      if (MISSING.includes((error as { code?: string }).code ?? '')) return null;
      throw error;
    }
  }

  /** The epoch of the hand-over, or null when there was nothing to close. */
  async close(context: string, side: Side, expected: number, to: Side): Promise<number | null> {
    const { rows } = await this.ask<{ closed: string | null }>(
      context,
      side,
      `select ${schema(context)}.banyan_close($1, $2) as closed`,
      [expected, to],
    );
    return rows[0]?.closed ? Number(rows[0].closed) : null;
  }

  async bar(context: string, side: Side, below: number): Promise<boolean> {
    const { rows } = await this.ask<{ ok: boolean }>(context, side, `select ${schema(context)}.banyan_bar($1) as ok`, [
      below,
    ]);
    return rows[0]?.ok === true;
  }

  async reopen(context: string, side: Side, closedAt: number): Promise<boolean> {
    const { rows } = await this.ask<{ ok: boolean }>(
      context,
      side,
      `select ${schema(context)}.banyan_reopen($1) as ok`,
      [closedAt],
    );
    return rows[0]?.ok === true;
  }

  /** Makes the service's database where it is ours to make, and brings its schema up to date. */
  async ensureService(context: string): Promise<void> {
    const url = this.url(context, 'service');
    if (!this.config.database.serviceUrls[context]) await this.createDatabase(url);
    await migrate({
      adminUrl: url,
      context,
      side: 'service',
      folders: [join(migrationsDir, '_messaging'), join(migrationsDir, context)],
      // A URL of the operator's is used as it is: the services take its own role too.
      role: !this.config.database.serviceUrls[context] || new URL(url).password !== '',
    });
  }

  async stop(): Promise<void> {
    await Promise.all([...this.listeners.values()].map((listener) => listener.stop()));
    await Promise.all([...this.pools.values()].map((pool) => pool.end()));
  }

  /** Runs one statement in a context's database; its texts must qualify their tables. */
  async ask<R extends pg.QueryResultRow>(context: string, side: Side, text: string, values: unknown[] = []) {
    try {
      return await this.pool(context, side).query<R>(text, values);
    } catch (error) {
      throw isAway(error) ? new DatabaseAway(`the ${side}'s database does not answer`, { cause: error }) : error;
    }
  }

  private async createDatabase(url: string): Promise<void> {
    const name = decodeURIComponent(new URL(url).pathname.slice(1));
    const client = new pg.Client({ connectionString: this.config.database.url, connectionTimeoutMillis: 5_000 });
    client.on('error', () => {}); // told by the query that runs
    await client.connect();
    try {
      const { rowCount } = await client.query('select from pg_database where datname = $1', [name]);
      if (rowCount === 0) await client.query(`create database ${client.escapeIdentifier(name)}`);
    } catch (error) {
      // Somebody else was faster.
      if ((error as { code?: string }).code !== '42P04' && (error as { code?: string }).code !== '23505') throw error;
    } finally {
      await client.end();
    }
  }

  /** Connections as administrator; `stop` ends them. */
  pool(context: string, side: Side): pg.Pool {
    const url = this.url(context, side);
    let pool = this.pools.get(url);
    if (!pool) {
      pool = new pg.Pool({
        connectionString: url,
        max: 4,
        application_name: 'banyan:control-plane',
        connectionTimeoutMillis: 2_000,
        // A hand-over must notice a database that hangs; what takes longer than this does not run here.
        query_timeout: 3_000,
        idleTimeoutMillis: 30_000,
        keepAlive: true,
      });
      pool.on('error', (error) => this.log.warn({ msg: 'connection lost', err: error }));
      this.pools.set(url, pool);
    }
    return pool;
  }

  private heard(payload: string): void {
    try {
      const { context } = JSON.parse(payload) as { context?: unknown };
      if (typeof context === 'string') this.events.emit('opened', context);
    } catch {
      this.log.warn({ msg: 'a notification that nobody understands', payload: payload.slice(0, 200) });
    }
  }
}

const schema = (context: string): string => pg.escapeIdentifier(context);

/** The trouble is the connection's or the server's, and not the statement's. */
export const isAway = (error: unknown): boolean =>
  error instanceof DatabaseAway || databaseFailure(error) instanceof DatabaseUnavailableError;
