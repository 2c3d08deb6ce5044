import { randomUUID } from 'node:crypto';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { failPoint } from '@banyan/platform/fail-point';
import { Applier } from './applier.js';
import { type Chunk, ChunkReader, WATERMARK, type Watermark, Window } from './backfill.js';
import { connect } from './connection.js';
import type { LogSource } from './log-reader.js';
import { ADVANCE, ADVANCE_DURABLY, advanceValues } from './mark.js';
import { type LogEvent, PgOutput, type Relation } from './pgoutput.js';
import { type Row, placesOf, valueAt } from './row.js';
import { type OpenOptions, type Opened, openStream } from './open.js';
import type { RunOptions } from './run-options.js';
import type { Stream } from './stream.js';

/* A batch ends with the first source transaction that goes past one of these. */
const BATCH_ROWS = 10_000;
const BATCH_MS = 300;
/* How often the server is asked how far it is: a reader of its own last write waits for this. */
const ASK_MS = 20;
/* After this without a change it is asked, and the mark moved, more rarely: moving it makes log, too. */
const QUIET_AFTER_MS = 1_000;
const QUIET_ASK_TICKS = 10;
const QUIET_MARK_MS = 1_000;
const DURABLE_MS = 1_000;
const PROGRESS_MS = 500;

export interface SessionRun extends OpenOptions {
  onOpen: () => void;
  /** After the signal: is what was read up to here enough? */
  mayStop?: ((read: bigint) => boolean) | undefined;
}

/** One connection to each side, from the mark on until something breaks or the stream is told to end. */
export class Session {
  readonly #output = new PgOutput();
  readonly #applier: Applier;
  #log: LogSource | undefined;
  #chunks: ChunkReader | undefined;
  #failure: Error | undefined;

  /** Where the mark will stand when all that was sent is committed; where it stands; where it is on the disk. */
  #sent: bigint;
  #committed: bigint;
  #durable: bigint;
  /** How far the log was read, and the source's clock there. */
  #read: bigint;
  #readAt = Date.now();
  #commitsUnderWay = 0;

  #inSource = false;
  #inTarget = false;
  #commitNow = false;
  #ending = false;
  #batchSince = 0;
  #batchRows = 0;

  #window: Window | undefined;
  #appliedChunk: Chunk | undefined;
  #backfilling: boolean;
  /** Numbers of transactions in the log before the window, and since. */
  #before = new Set<number>();
  #since = new Set<number>();

  #activeAt = 0;
  #markedAt = Date.now();
  #durableAt = Date.now();
  #progressAt = 0;
  #ticks = 0;
  #copied = 0;

  private constructor(
    private readonly stream: Stream,
    private readonly options: RunOptions,
    private readonly run: SessionRun,
    private readonly opened: Opened,
  ) {
    this.#applier = new Applier(opened.target, stream, opened.tables);
    this.#sent = this.#committed = this.#durable = this.#read = opened.mark.lsn;
    this.#backfilling = opened.backfilling;
  }

  /** Ends with 'signal' or 'message'; throws what broke. */
  static async run(stream: Stream, options: RunOptions, run: SessionRun): Promise<'signal' | 'message'> {
    const opened = await openStream(stream, run);
    const session = new Session(stream, options, run, opened);
    let timer: NodeJS.Timeout | undefined;
    try {
      session.#log = opened.log;
      run.onOpen();
      timer = setInterval(() => session.#ask(), ASK_MS);
      if (session.#backfilling) await session.#startCopying();
      return await session.#run(opened.log);
    } finally {
      clearInterval(timer);
      session.#chunks?.stop();
      opened.log.close();
      await opened.close();
    }
  }

  async #run(log: LogSource): Promise<'signal' | 'message'> {
    for (;;) {
      if (this.#failure) throw this.#failure;
      const ended = this.#ending && !this.#inSource;
      if (ended || this.#mayStop()) {
        // In the middle of a transaction there is nothing to finish: it was not committed, and comes again.
        if (!this.#inSource) await this.#finish(log);
        return ended ? 'message' : 'signal';
      }
      const item = log.take();
      if (!item) await this.#idle(log);
      else if ('payload' in item) {
        const applied = this.#apply(this.#output.decode(item.payload));
        if (applied) await applied;
      } else if (!this.#inSource && item.lsn > this.#read) {
        this.#read = item.lsn;
        this.#readAt = item.at;
      }
    }
  }

  /** A slot gives the rest of a transaction; whoever publishes a shared log may have stopped in the middle of one. */
  #mayStop(): boolean {
    if (this.options.signal?.aborted !== true) return false;
    return this.run.mayStop ? this.run.mayStop(this.#read) : !this.#inSource;
  }

  #apply(event: LogEvent): Promise<void> | undefined {
    switch (event.kind) {
      case 'begin':
        this.#inSource = true;
        if (this.#backfilling) this.#since.add(event.xid);
        return undefined;
      case 'commit':
        this.#inSource = false;
        this.#read = event.end;
        this.#readAt = event.at;
        return this.#maybeCommit();
      case 'insert':
        this.#open();
        this.#windowOn(event.relation)?.put(event.row);
        this.#applier.insert(event.relation, event.row);
        return this.#changed();
      case 'update':
        this.#open();
        this.#windowOn(event.relation)?.put(event.row, event.old);
        this.#applier.update(event.relation, event.old, event.row, this.#rereadKey(event.relation, event.row));
        return this.#changed();
      case 'delete':
        this.#open();
        this.#windowOn(event.relation)?.delete(event.old);
        this.#applier.delete(event.relation, event.old);
        return this.#changed();
      case 'truncate':
        this.#open();
        for (const relation of event.relations) this.#windowOn(relation)?.truncate();
        this.#applier.truncate(event.relations, event.restartIdentity);
        return this.#changed();
      case 'message':
        return this.#message(event);
      default:
        return undefined;
    }
  }

  #open(): void {
    if (this.#inTarget) return;
    this.#inTarget = true;
    this.#batchSince = Date.now();
    this.#batchRows = 0;
    void this.#applier.send('begin');
  }

  #changed(): Promise<void> | undefined {
    this.#batchRows += 1;
    // Only now and then: most rows need no look at what is pending.
    return this.#batchRows % 500 === 0 ? this.#applier.relieve() : undefined;
  }

  #maybeCommit(): Promise<void> | undefined {
    if (!this.#inTarget) return undefined;
    if (this.#commitNow || this.#ending) return this.#commit(true);
    if (this.#batchRows >= BATCH_ROWS || Date.now() - this.#batchSince > BATCH_MS) return this.#commit(false);
    return undefined;
  }

  /** Ends the target's transaction with the mark in it. Without `wait` one more batch may be sent meanwhile. */
  async #commit(wait: boolean): Promise<void> {
    this.#applier.flush();
    failPoint('bridge-before-mark');
    const to = this.#read;
    void this.#applier.send(ADVANCE, advanceValues(this.stream.name, this.run.holder, this.#sent, to, this.#readAt));
    this.#sent = to;
    this.#commitsUnderWay += 1;
    const commit = this.#applier.send('commit').then(
      ({ command }) => {
        this.#commitsUnderWay -= 1;
        // A failed transaction answers COMMIT with ROLLBACK.
        if (command === 'COMMIT') this.#committed = to;
      },
      () => {},
    );
    this.#inTarget = false;
    this.#commitNow = false;
    this.#activeAt = this.#markedAt = Date.now();
    if (!wait && this.#commitsUnderWay < 2) return;
    await this.#applier.settle();
    await commit;
    if (this.#committed !== this.#sent) throw new Error('The target did not commit');
    failPoint('bridge-after-apply');
    this.#chunkIsDurable();
    this.#tell();
    this.#log?.status({ applied: this.#committed, durable: this.#durable, ask: true });
    if (Date.now() - this.#durableAt > DURABLE_MS) await this.#makeDurable();
  }

  async #idle(log: LogSource): Promise<void> {
    if (!this.#inSource && this.#inTarget) {
      // What is in the socket already joins the batch.
      await setImmediate();
      if (log.isEmpty || Date.now() - this.#batchSince > BATCH_MS) await this.#commit(true);
      return;
    }
    if (this.#commitsUnderWay > 0) await this.#applier.settle();
    const now = Date.now();
    const quiet = now - this.#activeAt > QUIET_AFTER_MS;
    if (!this.#inSource && this.#read > this.#sent && (!quiet || now - this.#markedAt > QUIET_MARK_MS)) {
      await this.#advance(ADVANCE);
      this.#markedAt = now;
    }
    if (this.#committed > this.#durable && now - this.#durableAt > DURABLE_MS) await this.#makeDurable();
    this.#tell();
    await log.wait(ASK_MS * 10);
  }

  async #makeDurable(): Promise<void> {
    if (this.#inTarget) return;
    await this.#advance(ADVANCE_DURABLY);
    this.#durable = this.#committed;
    this.#durableAt = Date.now();
  }

  async #advance(statement: string): Promise<void> {
    const to = this.#inSource || this.#inTarget ? this.#sent : this.#read;
    void this.#applier.send(statement, advanceValues(this.stream.name, this.run.holder, this.#sent, to, this.#readAt));
    this.#sent = to;
    await this.#applier.settle();
    this.#committed = to;
  }

  async #finish(log: LogSource): Promise<void> {
    if (this.#inTarget) await this.#commit(true);
    await this.#applier.settle();
    await this.#makeDurable();
    log.status({ applied: this.#committed, durable: this.#durable, ask: false });
    this.#tell(true);
    // The server has to read it before the connection ends.
    await sleep(5);
  }

  #ask(): void {
    this.#ticks += 1;
    const quiet = Date.now() - this.#activeAt > QUIET_AFTER_MS;
    if (quiet && this.#ticks % QUIET_ASK_TICKS !== 0) return;
    this.#log?.status({ applied: this.#committed, durable: this.#durable, ask: true });
  }

  async #message(event: LogEvent & { kind: 'message' }): Promise<void> {
    if (!event.transactional) return;
    if (event.prefix === WATERMARK) return this.#watermark(JSON.parse(event.content) as Watermark);
    const handler = this.options.onMessage?.[event.prefix];
    if (!handler) return;
    this.#open();
    this.#applier.flush();
    await this.#applier.settle();
    const verdict = await handler(
      { query: (text, values) => this.#applier.send(text, values as unknown[]) as never },
      event.content,
      event.lsn,
    );
    this.#commitNow = true;
    if (verdict === 'end') this.#ending = true;
  }

  async #startCopying(): Promise<void> {
    const source = await connect(this.stream.source, { as: `banyan:${this.stream.name}:copy` });
    const chunks = (this.#chunks = new ChunkReader({
      source,
      stream: this.stream,
      run: randomUUID(),
      earlier: this.opened.earlier,
      mostRows: this.options.chunkRows,
      progress: this.opened.progress,
      rereads: this.opened.rereads,
    }));
    void chunks
      .readAll()
      .catch((error: Error) => (this.#failure ??= error))
      .finally(() => source.end().catch(() => {}));
  }

  #windowOn(relation: Relation): Window | undefined {
    return this.#window?.chunk.table === relation.table ? this.#window : undefined;
  }

  #rereadKey(relation: Relation, row: Row): string[] | undefined {
    if (!this.#backfilling) return undefined;
    return placesOf(relation.columns, this.opened.keys.get(relation.table) ?? relation.keyColumns).map(
      (place) => valueAt(row, place) as string,
    );
  }

  async #watermark(mark: Watermark): Promise<void> {
    const chunk = this.#chunks?.chunkOf(mark);
    if (!chunk) return;
    if (mark.edge === 'low') {
      this.#window = new Window(chunk);
      for (const xid of this.#since) this.#before.add(xid);
      this.#since.clear();
      return;
    }
    const window = this.#window;
    this.#window = undefined;
    // A transaction is in the log a moment before others can see it. One that was applied before the chunk was read, and
    // that the chunk has not seen, would be undone by it.
    const missed = [...this.#before].some((xid) => chunk.snapshot.misses(xid));
    if (window?.chunk !== chunk || missed) return this.#chunks?.startOver();
    for (const xid of this.#before) if (chunk.snapshot.isBefore(xid)) this.#before.delete(xid);
    await this.#applyChunk(chunk, window);
  }

  async #applyChunk(chunk: Chunk, window: Window): Promise<void> {
    this.#open();
    for (const [i, row] of window.rows().entries()) {
      this.#applier.insert({ table: chunk.table, columns: row.columns }, row);
      if (i % 500 === 499) await this.#applier.relieve();
    }
    this.#applier.flush();
    this.#copied += chunk.rows.length;
    this.#commitNow = true;
    this.#appliedChunk = chunk;
    if (chunk.reread) {
      const finished = await this.opened.noteReread(this.#applier, chunk.table, window.settled(chunk.reread));
      if (finished) this.#backfilling = false;
    } else await this.opened.noteChunk(this.#applier, chunk);
  }

  #chunkIsDurable(): void {
    if (!this.#appliedChunk) return;
    this.#chunks?.applied(this.#appliedChunk);
    this.#appliedChunk = undefined;
    if (!this.#backfilling) {
      this.#before.clear();
      this.#since.clear();
    }
    failPoint('bridge-after-chunk');
  }

  #tell(force = false): void {
    const now = Date.now();
    const caughtUp = !this.#backfilling && this.#log?.isEmpty === true && this.#committed >= this.#read;
    if (!force && now - this.#progressAt < PROGRESS_MS) return;
    this.#progressAt = now;
    this.options.onProgress?.({
      rows: this.#applier.applied,
      copied: this.#copied,
      backfilling: this.#backfilling,
      caughtUp,
      applied: this.#committed,
    });
  }
}
