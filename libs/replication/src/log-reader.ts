import type pg from 'pg';
import { type Wire, connect, literal, quoted, wireOf } from './connection.js';
import { type LogItem, LogQueue } from './log-queue.js';
import { wallClockMs } from './pgoutput.js';
import { lsnText } from './stream.js';

/** Where a session has the source's log from: the slot itself, or a stream that another process may publish. */
export interface LogSource {
  /** The next item, if one is here already. Throws when the log has broken off and all that came before was taken. */
  take(): LogItem | undefined;
  readonly isEmpty: boolean;
  /** Resolves when something came or broke, or after `ms`. */
  wait(ms: number): Promise<void>;
  /** Tells how far things are; `ask`: the source is to say how far it is itself. */
  status(of: { applied: bigint; durable: bigint; ask: boolean }): void;
  close(): void;
}

/* A live server answers a request for a keepalive at once. */
const SILENT_MS = 30_000;

const STATUS = 0x72;
const DATA = 0x77;
const KEEPALIVE = 0x6b;

/** Follows a slot from a position on. What it gave is forgotten by the server only after `status()` said it is durable. */
export class LogReader implements LogSource {
  readonly #queue = new LogQueue(() => {
    this.#heardAt = Date.now();
    this.#wire.stream.resume();
  });
  #heardAt = Date.now();
  #received = 0n;
  readonly #wire: Wire;

  private constructor(private readonly client: pg.Client) {
    this.#wire = wireOf(client);
    client.on('end', () => this.#queue.fail(new Error('The connection to the source was closed')));
  }

  static async start(url: string, { slot, from, as }: { slot: string; from: bigint; as: string }): Promise<LogReader> {
    const reader = new LogReader(await connect(url, { as, replication: true }));
    try {
      // Changes that another bridge made carry an origin, and `none` leaves them out: nothing comes back as an echo.
      await reader.#begin(
        `START_REPLICATION SLOT ${quoted(slot)} LOGICAL ${lsnText(from)} ` +
          `(proto_version '1', publication_names ${literal(quoted(slot))}, messages 'true', origin 'none')`,
      );
    } catch (error) {
      reader.close();
      throw error;
    }
    return reader;
  }

  take(): LogItem | undefined {
    const item = this.#queue.take();
    if (!item && Date.now() - this.#heardAt > SILENT_MS) throw new Error('The source has been silent for 30 s');
    return item;
  }

  get isEmpty(): boolean {
    return this.#queue.isEmpty;
  }

  wait(ms: number): Promise<void> {
    return this.#queue.wait(ms);
  }

  status({ applied, durable, ask }: { applied: bigint; durable: bigint; ask: boolean }): void {
    if (this.#queue.failed) return;
    const out = Buffer.alloc(34);
    out[0] = STATUS;
    out.writeBigUInt64BE(this.#received > applied ? this.#received : applied, 1);
    out.writeBigUInt64BE(durable, 9);
    out.writeBigUInt64BE(applied, 17);
    out.writeBigInt64BE(BigInt(Date.now() - 946_684_800_000) * 1000n, 25);
    out[33] = ask ? 1 : 0;
    this.#wire.sendCopyFromChunk(out);
  }

  close(): void {
    this.#queue.fail(new Error('The reader was closed'));
    // A stream that runs cannot be asked to end while the server is busy sending: the socket goes.
    this.#wire.stream.destroy();
  }

  #begin(text: string): Promise<void> {
    return new Promise((started, refused) => {
      (this.client as unknown as { connection: { once(event: string, fn: () => void): void } }).connection.once(
        'replicationStart',
        started,
      );
      const ended = (error: Error) => {
        refused(error);
        this.#queue.fail(error);
      };
      // The protocol of a query as the client sees it; it hands us the messages of the COPY mode.
      const query = {
        submit: () => void this.#wire.query(text),
        handleCopyData: ({ chunk }: { chunk: Buffer }) => this.#receive(chunk),
        handleError: ended,
        handleCommandComplete: () => {},
        handleReadyForQuery: () => ended(new Error('The source ended the stream')),
      };
      this.client.query(query as never);
    });
  }

  #receive(chunk: Buffer): void {
    this.#heardAt = Date.now();
    if (chunk[0] === DATA) {
      // A copy: the parser below uses its buffer again.
      const payload = Buffer.from(chunk.subarray(25));
      const start = chunk.readBigUInt64BE(1);
      if (start > this.#received) this.#received = start;
      this.#queue.push(payload);
      // The log waits on the server's disk.
      if (this.#queue.isFull) this.#wire.stream.pause();
    } else if (chunk[0] === KEEPALIVE) {
      const lsn = chunk.readBigUInt64BE(1);
      if (lsn > this.#received) this.#received = lsn;
      this.#queue.reached({ lsn, at: wallClockMs(chunk.readBigInt64BE(9)) });
    }
    this.#queue.wakeUp();
  }
}
