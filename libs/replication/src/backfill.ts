import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { type Table, readTables } from './catalog.js';
import { literal, qualified, quoted, wireOf } from './connection.js';
import type { EarlierTransactions } from './earlier-transactions.js';
import { type TableProgress } from './mark.js';
import { type Row, keyAt, overlay, placesOf, rowOf, valueAt } from './row.js';
import { Snapshot } from './snapshot.js';
import type { Stream } from './stream.js';

export const WATERMARK = 'banyan.watermark';

/** A piece of a table, read between two watermarks in the source's log. */
export interface Chunk {
  id: number;
  table: string;
  /** The key's columns in the source. */
  key: readonly string[];
  rows: Row[];
  snapshot: Snapshot;
  /** Nothing lies behind it. */
  last: boolean;
  lastKey: string[] | null;
  /** Rows read again by their keys, after all tables were copied. */
  reread?: string[][];
}

export interface Watermark {
  run: string;
  chunk: number;
  edge: 'low' | 'high';
}

/* Chunks read and not yet applied: the reader works while the applier does. */
const AHEAD = 2;
const FIRST_ROWS = 500;
const MOST_ROWS = 10_000;
const CHUNK_BYTES = 4 << 20;

export interface ChunkReaderOptions {
  source: pg.Client;
  stream: Stream;
  /** Tells this reader's watermarks from those of others. */
  run: string;
  earlier: EarlierTransactions;
  mostRows?: number | undefined;
  progress: () => Promise<TableProgress[]>;
  rereads: () => Promise<{ table: string; keys: string[][] } | undefined>;
}

/**
 * Reads the tables that are still to be copied, chunk by chunk in the order of their keys, each chunk between two
 * messages in the log. The applier, which meets these messages in the order of the log, decides what of a chunk holds.
 */
export class ChunkReader {
  readonly #source: pg.Client;
  readonly #most: number;
  readonly #chunks = new Map<number, Chunk>();
  #ids = 0;
  #rows: number;
  #restart = false;
  #wake: (() => void) | undefined;
  #stopped = false;

  constructor(private readonly options: ChunkReaderOptions) {
    this.#source = options.source;
    this.#most = options.mostRows ?? MOST_ROWS;
    this.#rows = Math.min(FIRST_ROWS, this.#most);
  }

  /** Reads until nothing is left; ends early after `stop`. */
  async readAll(): Promise<void> {
    while (!this.#stopped && !(await this.options.earlier.haveEnded(this.#source))) await sleep(20);
    let pause = 5;
    while (!this.#stopped) {
      this.#restart = false;
      const left = (await this.options.progress()).filter(({ done }) => !done);
      for (const table of left) await this.#readTable(table);
      if (this.#restart) {
        // A transaction that is in the log but not visible yet: it takes a moment, or as long as a standby needs.
        await sleep(pause);
        pause = Math.min(pause * 2, 200);
        continue;
      }
      pause = 5;
      if (left.length > 0) {
        await this.#untilApplied(0);
        continue;
      }
      const reread = await this.options.rereads();
      await this.#read({ table: reread?.table, keys: reread?.keys ?? [] });
      await this.#untilApplied(0);
      if (!reread && !this.#restart) return;
    }
  }

  /** The chunk that a watermark speaks of; none when it was read by another process, or given up. */
  chunkOf({ run, chunk }: Watermark): Chunk | undefined {
    return run === this.options.run ? this.#chunks.get(chunk) : undefined;
  }

  applied(chunk: Chunk): void {
    this.#chunks.delete(chunk.id);
    this.#wake?.();
  }

  /** A chunk missed a transaction: it and all that were read after it are read again. */
  startOver(): void {
    this.#restart = true;
    this.#chunks.clear();
    this.#wake?.();
  }

  stop(): void {
    this.#stopped = true;
    this.startOver();
  }

  async #readTable({ table, lastKey }: TableProgress): Promise<void> {
    let after = lastKey;
    for (;;) {
      await this.#untilApplied(AHEAD - 1);
      if (this.#restart) return;
      const chunk = await this.#read({ table, after });
      if (!chunk || chunk.last) return;
      after = chunk.lastKey;
    }
  }

  async #read(what: {
    table?: string | undefined;
    after?: string[] | null;
    keys?: string[][];
  }): Promise<Chunk | undefined> {
    const tables = await readTables(this.#source, this.options.stream.schema);
    const table = tables.get(what.table ?? '');
    if (this.#restart) return undefined;
    const id = ++this.#ids;
    const chunk: Chunk = {
      id,
      table: what.table ?? '',
      key: table?.key ?? [],
      rows: [],
      snapshot: Snapshot.NONE,
      last: true,
      lastKey: null,
      ...(what.keys && { reread: what.keys }),
    };
    // Before its low watermark can come.
    this.#chunks.set(id, chunk);
    await this.#mark(id, 'low');
    await this.#source.query('begin isolation level repeatable read read only');
    try {
      const { rows } = await this.#source.query<{ snapshot: string }>('select pg_current_snapshot()::text as snapshot');
      chunk.snapshot = Snapshot.parse(rows[0]?.snapshot as string);
      if (table && (!what.keys || what.keys.length > 0)) await this.#copy(table, chunk, what);
    } finally {
      await this.#source.query('commit');
    }
    await this.#mark(id, 'high');
    return chunk;
  }

  async #copy(
    table: Table,
    chunk: Chunk,
    { after, keys }: { after?: string[] | null; keys?: string[][] },
  ): Promise<void> {
    const columns = table.columns.filter(({ generated }) => !generated);
    const names = columns.map(({ name }) => name);
    const typed = (key: readonly string[]) =>
      `(${key.map((value, i) => `${literal(value)}::${table.columns.find(({ name }) => name === table.key[i])?.type}`).join(', ')})`;
    const key = `(${table.key.map(quoted).join(', ')})`;
    const where = keys
      ? `where ${key} in (${keys.map(typed).join(', ')})`
      : after
        ? `where ${key} > ${typed(after)}`
        : '';
    const limit = keys ? '' : `order by ${table.key.map(quoted).join(', ')} limit ${this.#rows}`;
    chunk.rows = await copyRows(
      this.#source,
      names,
      `select ${columns.map(({ name, output }) => `textin(${output}(${quoted(name)}))`).join(', ')}
         from ${qualified(table.schema, table.name)} ${where} ${limit}`,
    );
    if (keys) return;
    chunk.last = chunk.rows.length < this.#rows;
    const last = chunk.rows.at(-1);
    chunk.lastKey = last ? placesOf(names, table.key).map((place) => valueAt(last, place) as string) : (after ?? null);
    const bytes = chunk.rows.reduce((sum, row) => sum + row.bytes.length, 0);
    const fits = Math.floor((CHUNK_BYTES * chunk.rows.length) / (bytes || 1));
    this.#rows = Math.max(1, Math.min(this.#most, this.#rows * 4, fits || 1));
  }

  async #mark(chunk: number, edge: Watermark['edge']): Promise<void> {
    await this.#source.query('select pg_logical_emit_message(true, $1, $2)', [
      WATERMARK,
      JSON.stringify({ run: this.options.run, chunk, edge } satisfies Watermark),
    ]);
  }

  async #untilApplied(most: number): Promise<void> {
    while (this.#chunks.size > most) await new Promise<void>((resolve) => (this.#wake = resolve));
  }
}

/** What happened to the rows of one table between the two watermarks of a chunk. */
export class Window {
  readonly #touched = new Map<string, Row | 'gone'>();
  readonly #places = new WeakMap<readonly string[], number[]>();
  #emptied = false;

  constructor(readonly chunk: Chunk) {}

  put(row: Row, old?: Row): void {
    const id = this.#keyOf(row);
    const before = old ? this.#keyOf(old) : id;
    const known = this.#touched.get(before);
    if (before !== id) this.#touched.set(before, 'gone');
    this.#touched.set(id, known && known !== 'gone' ? overlay(known, row) : row);
  }

  delete(old: Row): void {
    this.#touched.set(this.#keyOf(old), 'gone');
  }

  truncate(): void {
    this.#emptied = true;
    this.#touched.clear();
  }

  /**
   * The chunk's rows as they are at its high watermark. A row that was changed in between is taken from the log. Only what
   * the log left out, because no change touched it, is taken from the chunk; a deleted row stays deleted.
   */
  rows(): Row[] {
    if (this.#touched.size === 0 && !this.#emptied) return this.chunk.rows;
    return this.chunk.rows.flatMap((row) => {
      const now = this.#touched.get(this.#keyOf(row));
      if (now === 'gone' || (!now && this.#emptied)) return [];
      return [now ? overlay(row, now) : row];
    });
  }

  /**
   * The keys that were to be read again and now are settled. A row that came to such a key in between is not in the
   * chunk, and the log may not have told all of it: that key stays for the next time.
   */
  settled(keys: readonly string[][]): string[][] {
    const read = new Set(this.chunk.rows.map((row) => this.#keyOf(row)));
    return keys.filter((key) => {
      const id = this.#keyOf(rowOf(this.chunk.key, key));
      const now = this.#touched.get(id);
      return now === undefined || now === 'gone' || read.has(id);
    });
  }

  #keyOf(row: Row): string {
    let places = this.#places.get(row.columns);
    if (!places) this.#places.set(row.columns, (places = placesOf(row.columns, this.chunk.key)));
    return keyAt(row, places);
  }
}

/** Rows of a query whose columns are all text, as bytes: COPY's binary format has them one a message. */
function copyRows(client: pg.Client, columns: readonly string[], query: string): Promise<Row[]> {
  const wire = wireOf(client);
  const rows: Row[] = [];
  return new Promise((done, fail) => {
    let failure: Error | undefined;
    client.query({
      submit: () => void wire.query(`copy (${query}) to stdout (format binary)`),
      handleCopyData: ({ chunk }: { chunk: Buffer }) => {
        // The header comes in front of the first row.
        const at = chunk[0] === 0x50 && chunk.toString('latin1', 0, 6) === 'PGCOPY' ? 19 : 0;
        if (chunk.readInt16BE(at) < 0) return;
        const bytes = Buffer.from(chunk.subarray(at + 2));
        const cells = new Int32Array(columns.length * 2);
        let place = 0;
        for (let i = 0; i < columns.length; i++) {
          const length = bytes.readInt32BE(place);
          place += 4;
          cells[2 * i] = place;
          cells[2 * i + 1] = length;
          if (length > 0) place += length;
        }
        rows.push({ columns, bytes, cells });
      },
      handleCommandComplete: () => {},
      handleError: (error: Error) => {
        failure = error;
        fail(error);
      },
      handleReadyForQuery: () => failure ?? done(rows),
    } as never);
  });
}
