import { AsyncLocalStorage } from 'node:async_hooks';
import type { Socket } from 'node:net';
import { PrismaPg } from '@prisma/adapter-pg';
import pg from 'pg';
import {
  DatabaseUnavailableError,
  TransactionAbortedError,
  failureOf,
  isStalePlan,
  typedError,
  type Failure,
} from './errors.js';

export interface DatabaseOptions {
  context: string;
  url: string;
  /** Connections at most. */
  max: number;
  /** The schema that unqualified names mean; the context's own by default. */
  schema?: string;
  /** Milliseconds to wait for a connection (a new one, or a free one) before the answer is 503. 5000 by default. */
  connectTimeoutMs?: number;
  /** Milliseconds that any one statement may take before Postgres cancels it: StatementTimeoutError. No limit by default. */
  statementTimeoutMs?: number;
  logger?: { warn(message: string): void };
}

export interface TransactionOptions {
  /** A limit for each statement of this transaction, in milliseconds; when hit: StatementTimeoutError. */
  statementTimeoutMs?: number;
  /** Sees the results of the `begin` statements, one per statement, before `fn` runs. Throwing rolls back. */
  onBegin?: (results: pg.QueryResult[]) => void;
}

export interface PoolMetrics {
  total: number;
  idle: number;
  waiting: number;
}

/** A statement as pg takes it; Prisma's adapter passes the object form. */
type Statement = string | pg.QueryConfig;

/* Distinct SQL texts prepared per connection at most; what comes later runs unnamed, so that SQL with a varying
   number of placeholders cannot fill the server's memory. */
const NAMED_STATEMENTS = 500;

/** An open transaction of one context. Queries of the context's Prisma client find it by themselves. */
export class Transaction {
  /** True once COMMIT or ROLLBACK was sent. */
  over = false;
  /** The first error that dooms the transaction, kept because Prisma and callers wrap or swallow it. */
  failure: { kind: Failure; error: unknown } | undefined;
  firstError: unknown;
  readonly atCommitStatements: pg.QueryConfig[] = [];
  readonly afterCommitStatements: { text: string; see: (result: pg.QueryResult) => void }[] = [];
  readonly #run: (statement: Statement, values?: unknown[]) => Promise<pg.QueryResult>;

  constructor(run: (statement: Statement, values?: unknown[]) => Promise<pg.QueryResult>) {
    this.#run = run;
  }

  async query<R extends pg.QueryResultRow>(statement: Statement, values?: unknown[]): Promise<pg.QueryResult<R>> {
    if (this.over) throw new Error('A query came after the end of its transaction: was a promise not awaited?');
    try {
      return (await this.#run(statement, values)) as pg.QueryResult<R>;
    } catch (error) {
      this.firstError ??= error;
      const kind = failureOf(error);
      if (kind) this.failure ??= { kind, error };
      throw kind === 'connection' ? typedError(kind, error) : error;
    }
  }

  /**
   * Sends the statement in the same round trip as COMMIT, after `fn` has returned. Its result cannot be looked at;
   * when it fails, nothing is committed and `transaction()` throws its error.
   */
  atCommit(text: string, values: unknown[] = []): void {
    if (this.over) throw new Error('atCommit came after the end of its transaction');
    this.atCommitStatements.push({ text, values });
  }

  /**
   * Sends the statement (trusted text without parameters) right behind COMMIT, in the same round trip, as a statement of
   * its own. `see` gets its result once the transaction has committed; a failure of it is nobody's.
   */
  afterCommit(text: string, see: (result: pg.QueryResult) => void): void {
    if (this.over) throw new Error('afterCommit came after the end of its transaction');
    this.afterCommitStatements.push({ text, see });
  }
}

/**
 * One context's database: a pool of connections as the context's own role, and its transactions.
 *
 * The transaction is ambient (AsyncLocalStorage): inside `transaction()` every query of this Database, including
 * those of a Prisma client built on `prismaAdapter()`, runs on the transaction's connection. Prisma's own
 * interactive transactions cost 4 times the CPU of this (600 against 150 µs for one select and one update).
 */
export class Database {
  readonly context: string;
  readonly #ambient = new AsyncLocalStorage<Transaction | undefined>();
  readonly #pool: AmbientPool;
  readonly #names = new Map<string, string>();
  #statements = 0;
  #closed: Promise<void> | undefined;

  constructor(options: DatabaseOptions) {
    this.context = options.context;
    const schema = options.schema ?? options.context;
    this.#pool = new AmbientPool(
      {
        connectionString: options.url,
        max: options.max,
        application_name: `banyan:${options.context}`,
        // A URL's own `options` win; else names resolve in the context's schema whatever role the URL names.
        ...(/[?&]options=/.test(options.url) ? {} : { options: `-c search_path=${quoted(schema)}` }),
        connectionTimeoutMillis: options.connectTimeoutMs ?? 5000,
        idleTimeoutMillis: 30_000,
        // Postgres ends a statement that takes too long. One that hangs itself, or a network that swallows, is noticed
        // here, a little later, and its connection is given up.
        ...(options.statementTimeoutMs
          ? { statement_timeout: options.statementTimeoutMs, query_timeout: options.statementTimeoutMs + 500 }
          : {}),
        // A transaction holds the fence: one that hangs would block a change of owner for ever.
        idle_in_transaction_session_timeout: 60_000,
        keepAlive: true,
        // Sends a statement while an earlier one is still running. Speed alone is within noise, but queries that
        // Prisma runs in parallel on the transaction's connection need it, and COMMIT rides with the last writes.
        pipeline: true,
        types: { getTypeParser },
      } as pg.PoolConfig,
      this.#ambient,
      (count) => (this.#statements += count),
    );
    this.#pool.on('error', (error) =>
      options.logger?.warn(`${options.context}: idle connection lost: ${error.message}`),
    );
  }

  /** Runs one statement, prepared under a name; in the ambient transaction when there is one. bigint columns arrive as numbers. */
  query<R extends pg.QueryResultRow = Record<string, unknown>>(
    text: string,
    values: unknown[] = [],
  ): Promise<pg.QueryResult<R>> {
    return this.#pool.query<R>({ name: this.#nameOf(text), text, values });
  }

  /**
   * Runs `fn` in one transaction and commits what it did; when it throws, nothing is kept. BEGIN and the statements
   * of `begin` (trusted text without parameters: the fence) are one round trip. Inside a transaction of this
   * Database it joins that one, and `begin` and `options` are not used.
   *
   * Throws what `fn` throws, or RetryableTransactionError, StatementTimeoutError, DatabaseUnavailableError,
   * TransactionAbortedError.
   */
  async transaction<T>(
    begin: { text: string } | undefined,
    fn: (tx: Transaction) => Promise<T>,
    options: TransactionOptions = {},
  ): Promise<T> {
    const joined = this.currentTransaction();
    if (joined) return fn(joined);

    const { client, results } = await this.#begin(begin, options);
    const tx = new Transaction((statement, values) => this.#pool.run(client, statement, values));
    let answer: T;
    try {
      options.onBegin?.(results);
      // Awaited inside: a Prisma query starts when it is awaited, and would start outside of the transaction otherwise.
      answer = await this.#ambient.run(tx, async () => await fn(tx));
    } catch (error) {
      tx.over = true;
      await this.#rollback(client, tx.failure?.kind === 'connection' || isStalePlan(tx.failure?.error));
      throw tx.failure ? typedError(tx.failure.kind, tx.failure.error) : error;
    }
    tx.over = true;
    await this.#commit(client, tx);
    return answer;
  }

  /** The transaction that the calling code runs in, if any. */
  currentTransaction(): Transaction | undefined {
    const tx = this.#ambient.getStore();
    return tx && !tx.over ? tx : undefined;
  }

  /** Runs `fn` as if no transaction were open: for background work that is set off from inside one. */
  outsideTransaction<T>(fn: () => T | Promise<T>): Promise<T> {
    return this.#ambient.run(undefined, async () => await fn());
  }

  /** For `new PrismaClient({ adapter: db.prismaAdapter() })`. The pool stays ours: disconnecting Prisma leaves it open. */
  prismaAdapter(): PrismaPg {
    return new PrismaPg(this.#pool as unknown as pg.Pool, {
      statementNameGenerator: (query) => this.#nameOf(query.sql) ?? '',
    });
  }

  metrics(): PoolMetrics {
    return { total: this.#pool.totalCount, idle: this.#pool.idleCount, waiting: this.#pool.waitingCount };
  }

  /** SQL statements sent so far, BEGIN and COMMIT included. */
  statementsExecuted(): number {
    return this.#statements;
  }

  /** Waits for running queries, then closes every connection. */
  close(): Promise<void> {
    return (this.#closed ??= this.#pool.end());
  }

  #nameOf(text: string): string | undefined {
    let name = this.#names.get(text);
    if (name === undefined && this.#names.size < NAMED_STATEMENTS) {
      name = `q${this.#names.size}`;
      this.#names.set(text, name);
    }
    return name;
  }

  async #begin(begin: { text: string } | undefined, options: TransactionOptions) {
    const parts = ['BEGIN'];
    if (options.statementTimeoutMs !== undefined)
      parts.push(`SET LOCAL statement_timeout = ${Math.max(1, Math.ceil(options.statementTimeoutMs))}`);
    const own = parts.length;
    if (begin) parts.push(begin.text);
    const text = parts.join(';');
    for (let attempt = 0; ; attempt++) {
      const client = await this.#pool.acquire();
      try {
        const results = await this.#pool.run(client, text);
        return { client, results: ([] as pg.QueryResult[]).concat(results).slice(own) };
      } catch (error) {
        const failure = failureOf(error);
        // The fence refuses by an error: during a change of owner that must not cost a reconnect each.
        await this.#rollback(client, failure === 'connection');
        // After a restart of Postgres the pool may hold dead connections. Nothing has run yet, so trying once more is safe.
        if (failure === 'connection' && attempt === 0) continue;
        throw failure ? typedError(failure, error) : error;
      }
    }
  }

  async #rollback(client: pg.PoolClient, broken: boolean): Promise<void> {
    if (broken) return client.release(true);
    try {
      await this.#pool.run(client, 'ROLLBACK');
      client.release();
    } catch {
      client.release(true); // the server rolls back when the connection goes
    }
  }

  async #commit(client: pg.PoolClient, tx: Transaction): Promise<void> {
    // One system call for all of them: a write to a socket costs more than making the statement.
    const stream = (client as unknown as { connection?: { stream?: Socket } }).connection?.stream;
    stream?.cork();
    const riders = tx.atCommitStatements.map((statement) =>
      this.#pool
        .run(client, { ...statement, name: this.#nameOf(statement.text) })
        .catch((error: unknown) => error as Error),
    );
    let outcome: pg.QueryResult;
    let followers: Promise<unknown>[] = [];
    try {
      const commit = this.#pool.run(client, 'COMMIT');
      followers = tx.afterCommitStatements.map(({ text, see }) =>
        Promise.all([commit, this.#pool.run(client, text)])
          .then(([{ command }, result]) => command === 'COMMIT' && see(result))
          .catch(() => {}),
      );
      stream?.uncork();
      outcome = await commit;
    } catch (error) {
      await Promise.all([...riders, ...followers]);
      client.release(true);
      // A deferred constraint or a serialization failure is told by COMMIT itself; the transaction is rolled back.
      const failure = failureOf(error);
      if (failure === 'connection') throw new DatabaseUnavailableError('unknown', error);
      throw failure ? typedError(failure, error) : error;
    }
    const failed = (await Promise.all(riders)).find((result) => result instanceof Error);
    if (followers.length > 0) await Promise.all(followers);
    client.release(isStalePlan(failed));
    if (outcome.command === 'COMMIT') return;
    const failure = failureOf(failed);
    if (failure) throw typedError(failure, failed);
    if (tx.failure) throw typedError(tx.failure.kind, tx.failure.error);
    throw failed ?? new TransactionAbortedError(tx.firstError);
  }
}

/** A pg.Pool (Prisma's adapter insists on one) whose queries follow the ambient transaction. */
class AmbientPool extends pg.Pool {
  readonly #ambient: AsyncLocalStorage<Transaction | undefined>;
  readonly #count: (statements: number) => void;

  constructor(
    config: pg.PoolConfig,
    ambient: AsyncLocalStorage<Transaction | undefined>,
    count: (statements: number) => void,
  ) {
    super(config);
    this.#ambient = ambient;
    this.#count = count;
    // A connection that breaks while it is checked out emits 'error', which would end the process; the query that
    // runs on it is rejected as well, and that is where it is handled.
    this.on('connect', (client) => client.on('error', () => {}));
  }

  acquire(): Promise<pg.PoolClient> {
    return super.connect().catch((error: unknown) => {
      throw failureOf(error) ? typedError('connection', error) : error;
    });
  }

  async run(client: pg.PoolClient, statement: Statement, values?: unknown[]): Promise<pg.QueryResult> {
    this.#count(1);
    const result = (await client.query(statement, values)) as pg.QueryResult | pg.QueryResult[];
    if (Array.isArray(result)) this.#count(result.length - 1);
    return result as pg.QueryResult;
  }

  // @ts-expect-error pg declares callback forms as well; nothing here, and nothing in Prisma's adapter, uses them.
  override async query<R extends pg.QueryResultRow>(
    statement: Statement,
    values?: unknown[],
  ): Promise<pg.QueryResult<R>> {
    const tx = this.#ambient.getStore();
    if (tx) return tx.query<R>(statement, values);
    const client = await this.acquire();
    let broken = false;
    try {
      return (await this.run(client, statement, values)) as pg.QueryResult<R>;
    } catch (error) {
      const failure = failureOf(error);
      broken = failure === 'connection' || isStalePlan(error);
      throw failure ? typedError(failure, error) : error;
    } finally {
      // pg's own query() drops the connection after every error, a duplicate key included: a reconnect is 4 ms here.
      client.release(broken);
    }
  }

  override connect(): Promise<pg.PoolClient> {
    if (this.#ambient.getStore())
      return Promise.reject(
        new Error(
          'A second connection was asked for inside a transaction: its writes would not be part of it. ' +
            'Do not use $transaction, nested writes or findUnique here; write the statements one after the other.',
        ),
      );
    return this.acquire();
  }
}

/* int8 as a number: counts, versions and money in minor units stay far below 2^53; beyond that is an error, never a rounding. */
const getTypeParser: pg.CustomTypesConfig['getTypeParser'] = (oid: number, format?: 'text' | 'binary') => {
  if (oid === pg.types.builtins.INT8 && format !== 'binary')
    return (text: string) => {
      const number = Number(text);
      if (!Number.isSafeInteger(number)) throw new RangeError(`bigint ${text} does not fit a number`);
      return number;
    };
  return format === 'binary' ? pg.types.getTypeParser(oid, 'binary') : pg.types.getTypeParser(oid, 'text');
};

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;
