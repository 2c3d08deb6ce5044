import { randomBytes } from 'node:crypto';
import { eventually } from '@banyan/testing';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, inject, vi } from 'vitest';
import { TestBroker, isSlowness } from './broker.spec-support.js';
import type { Queryable } from './connection.js';
import {
  type RunOptions,
  type SharedLog,
  type Stream,
  dropStream,
  prepareStream,
  runStream,
  streamState,
} from './index.js';

/** The same promises wherever the log comes from: the slot itself, or a stream in NATS. */
export function throughEachLog(specs: (both: TwoDatabases) => void): void {
  describe('from the slot', () => specs(new TwoDatabases()));
  describe('through JetStream', () => {
    const nats = new TestBroker();
    specs(new TwoDatabases(undefined, (stream) => nats.log(stream)));
  });
}

/** Two empty databases for one spec file, and streams between them that end with the test. */
export class TwoDatabases {
  readonly id = randomBytes(4).toString('hex');
  readonly #running = new Set<Running>();
  readonly #streams = new Map<string, Stream>();
  #source: pg.Pool | undefined;
  #target: pg.Pool | undefined;
  #streamsMade = 0;

  /** `log`: what every stream's log goes through, if not its slot alone. */
  constructor(
    private readonly serverUrl: () => string | Promise<string> = () => inject('adminUrl'),
    private readonly log?: (stream: string) => SharedLog,
  ) {
    // A slot begins only when every transaction of the server has ended, those of other specs among them.
    vi.setConfig({ testTimeout: 90_000 });
    beforeAll(() => this.#make());
    afterEach(() => this.#endStreams());
    afterAll(() => this.#drop());
  }

  source = '';
  target = '';

  /** For what asks the source by itself. */
  get sourcePool(): Queryable {
    return this.#source!;
  }

  async onSource<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]> {
    return (await this.#source!.query<R>(text, values)).rows;
  }

  async onTarget<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]> {
    return (await this.#target!.query<R>(text, values)).rows;
  }

  /** Runs it on both. */
  async onBoth(text: string): Promise<void> {
    await this.#source!.query(text);
    await this.#target!.query(text);
  }

  stream(schema: string, more: Partial<Stream> = {}): Stream {
    const stream = {
      name: `t_${this.id}_${++this.#streamsMade}`,
      source: this.source,
      target: this.target,
      schema,
      ...more,
    };
    this.#streams.set(stream.name, stream);
    return stream;
  }

  /** The other way round. */
  reverse(stream: Stream, more: Partial<Stream> = {}): Stream {
    return this.stream(stream.schema, { source: stream.target, target: stream.source, ...more });
  }

  /** One more target of a stream, beside the source's own schema. The spec ends it: the slot is not its own. */
  guest(stream: Stream, targetSchema: string): Stream {
    return { ...stream, target: stream.source, targetSchema };
  }

  run(stream: Stream, options: RunOptions = {}): Running {
    const running = new Running(stream, this.log ? { log: this.log(stream.name), ...options } : options);
    this.#running.add(running);
    return running;
  }

  /** Resolves when nobody has the stream's slot: a process that has ended lets go of it a moment later. */
  async idle(stream: Stream): Promise<void> {
    await eventually(async () => !(await streamState(stream)).active, { timeoutMs: 20_000 });
  }

  async start(stream: Stream, options: RunOptions & { backfill?: boolean } = {}): Promise<Running> {
    await this.idle(stream);
    await prepareStream(stream, { backfill: options.backfill ?? true });
    const running = this.run(stream, options);
    await running.caughtUp();
    return running;
  }

  /** Same rows in both? Compared by Postgres, as text. */
  async expectSame(stream: Stream, ...tables: string[]): Promise<void> {
    const dump = (schema: string, table: string) => `select t::text as row from ${schema}.${table} t order by 1`;
    for (const table of tables) {
      const on = (url: string, text: string) =>
        url === this.source ? this.onSource<{ row: string }>(text) : this.onTarget<{ row: string }>(text);
      const [from, to] = await Promise.all([
        on(stream.source, dump(stream.schema, table)),
        on(stream.target, dump(stream.targetSchema ?? stream.schema, table)),
      ]);
      expect(to.length, `rows of ${table}`).toBe(from.length);
      const differ = from.findIndex((each, i) => each.row !== to[i]?.row);
      expect([table, to[differ]?.row]).toEqual([table, from[differ]?.row]);
    }
  }

  async #make(): Promise<void> {
    const url = await this.serverUrl();
    const named = (name: string) => Object.assign(new URL(url), { pathname: `/${name}` }).href;
    const made = Date.now().toString(36);
    await this.#server(async (client) => {
      for (const side of ['source', 'target'] as const) {
        // The name of a test database: what a killed run leaves behind is swept.
        const name = `banyan_test_${made}_${this.id}${side[0]}`;
        await client.query(`create database ${name}`);
        this[side] = named(name);
      }
    });
    this.#source = new pg.Pool({ connectionString: this.source, max: 3 });
    this.#target = new pg.Pool({ connectionString: this.target, max: 3 });
    for (const pool of [this.#source, this.#target]) pool.on('error', () => {});
  }

  async #endStreams(): Promise<void> {
    await Promise.all([...this.#running].map((running) => running.stop().catch(() => {})));
    this.#running.clear();
    for (const stream of this.#streams.values()) {
      await this.idle(stream);
      await dropStream(stream);
    }
    this.#streams.clear();
  }

  async #drop(): Promise<void> {
    await Promise.all([this.#source?.end(), this.#target?.end()]);
    await this.#server(async (client) => {
      for (const url of [this.source, this.target])
        await client.query(`drop database if exists ${new URL(url).pathname.slice(1)} with (force)`);
    });
  }

  async #server(work: (client: pg.Client) => Promise<void>): Promise<void> {
    const client = new pg.Client({ connectionString: await this.serverUrl() });
    await client.connect();
    await work(client).finally(() => client.end());
  }
}

export class Running {
  readonly #stop = new AbortController();
  readonly #ended: Promise<'signal' | 'message'>;
  readonly problems: Error[] = [];

  constructor(
    readonly stream: Stream,
    options: RunOptions,
  ) {
    this.#ended = runStream(stream, {
      ...options,
      signal: this.#stop.signal,
      onProblem: (error) => {
        this.problems.push(error);
        options.onProblem?.(error);
      },
    });
    this.#ended.catch(() => {});
  }

  /** The problems that slowness does not explain; what took too long may have come to be, and is not expected again. */
  get faults(): Error[] {
    const isAfterwards = ({ message }: Error) => message.startsWith('wrong last sequence');
    const wasSlow = this.problems.some(isSlowness);
    return this.problems.filter((each) => !isSlowness(each) && !(wasSlow && isAfterwards(each)));
  }

  /** Resolves when everything that is in the source now is in the target. */
  async caughtUp(timeoutMs = 40_000): Promise<void> {
    const client = new pg.Client({ connectionString: this.stream.source });
    await client.connect();
    const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
    // Flushes the log up to here, which the test server does not do at each commit.
    await client.query(`select pg_logical_emit_message(true, 'spec', '', true)`);
    await client.end();
    await eventually(
      async () => {
        const { appliedLsn, backfill, active, reason } = await streamState(this.stream);
        const [high, low] = [appliedLsn ?? '0/0', rows[0]!.lsn].map((lsn) =>
          BigInt(
            `0x${lsn
              .split('/')
              .map((half) => half.padStart(8, '0'))
              .join('')}`,
          ),
        );
        if (!active || high! < low! || (backfill && !backfill.done))
          throw new Error(
            `${JSON.stringify({ appliedLsn, wanted: rows[0]!.lsn, backfill, active, reason })} ${this.problems.at(-1)?.stack ?? ''}`,
          );
        return true;
      },
      { timeoutMs },
    );
  }

  ended(): Promise<'signal' | 'message'> {
    return this.#ended;
  }

  stop(): Promise<'signal' | 'message'> {
    this.#stop.abort();
    return this.#ended;
  }
}
