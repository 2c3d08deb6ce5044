import { setTimeout as sleep } from 'node:timers/promises';
import { otherSide, sourceOf, streamName } from '@banyan/extraction/protocol';
import type { Side } from '@banyan/kernel';
import { failPoint } from '@banyan/platform/fail-point';
import { rootLogger } from '@banyan/platform/telemetry';
import {
  type MessageHandler,
  ReplicationError,
  type SharedLog,
  type Stream,
  runStream,
  skipTo,
  streamState,
} from '@banyan/replication';
import pg from 'pg';
import { z } from 'zod';

/** What `banyan_close` puts into the log, behind the last write of the side that it closed. */
const HandOver = z.object({ context: z.string(), epoch: z.int(), to: z.enum(['monolith', 'service']) });

interface OwnerRow {
  open: boolean;
  epoch: number;
}
type Owners = Record<Side, OwnerRow>;

/* A database that does not answer must not keep us from the other one. */
const CONNECT_MS = 5_000;
const WAIT_MS = 500;
const WATCH_MS = 1_000;
/* A stream that nobody runs keeps log; a little is no matter. */
const IDLE_BYTES = 16 << 20;

/**
 * Carries one context's rows from its owner's database to the other side's, whoever the owner is. A hand-over is a
 * message in the log: in the transaction in which it is applied the other side is opened; then the bridge turns round.
 */
export class Bridge {
  readonly #log;
  readonly #pools: Record<Side, pg.Pool>;
  /** Why nothing flows; undefined while it does. */
  #standstill: string | undefined = 'starting';
  #from: Side = 'monolith';
  rows = 0;

  constructor(
    private readonly context: string,
    private readonly urls: Record<Side, string>,
    /** Where the log of a side goes through, if a target that is away is not to hold it up. */
    private readonly sharedLog?: (from: Side) => SharedLog,
  ) {
    this.#log = rootLogger().child({ context: `Bridge ${context}` });
    const pool = (connectionString: string) => {
      const made = new pg.Pool({
        connectionString,
        max: 2,
        application_name: `banyan:bridge:${context}`,
        connectionTimeoutMillis: CONNECT_MS,
      });
      made.on('error', () => {}); // the next query finds out
      return made;
    };
    this.#pools = { monolith: pool(urls.monolith), service: pool(urls.service) };
  }

  get from(): Side {
    return this.#from;
  }

  /** Throws unless rows flow. */
  check(): void {
    if (this.#standstill !== undefined) throw new Error(this.#standstill);
  }

  state(): ReturnType<typeof streamState> {
    return streamState(this.#stream(this.#from), {
      source: this.#pools[this.#from],
      target: this.#pools[otherSide(this.#from)],
    });
  }

  /** Until the signal. `onReady` is called when both databases have answered. */
  async run(signal: AbortSignal, onReady: () => void): Promise<void> {
    let ready = false;
    while (!signal.aborted) {
      try {
        const owners = await this.#owners().catch((error: Error) => this.#openAlone(error));
        if (typeof owners === 'string') {
          await this.#carry(owners, undefined, signal);
          continue;
        }
        if (!ready) onReady();
        ready = true;
        await this.#carry(sourceOf(owners), owners, signal);
      } catch (error) {
        this.#stopped(error as Error);
        const superseded = error instanceof ReplicationError && error.code === 'SUPERSEDED';
        // Two bridges of one context: the newer one holds the stream, and this one must not snatch it back at once.
        await sleep(superseded ? 20 * WAIT_MS : WAIT_MS, undefined, { signal }).catch(() => {});
      }
    }
  }

  async close(): Promise<void> {
    await Promise.all(Object.values(this.#pools).map((pool) => pool.end()));
  }

  /** While one side does not answer, the other one's log may go on into a stream; throws `error` when it may not. */
  async #openAlone(error: Error): Promise<Side> {
    if (!this.sharedLog) throw error;
    for (const side of ['monolith', 'service'] as const)
      if ((await this.#owner(side).catch(() => undefined))?.open) return side;
    throw error;
  }

  /** `owners`: undefined while only `from` answers. */
  async #carry(from: Side, owners: Owners | undefined, signal: AbortSignal): Promise<void> {
    this.#from = from;
    const to = otherSide(from);
    const stop = new AbortController();
    let before = 0;
    const watch = this.#watch(from, owners, stop);
    try {
      const end = await runStream(this.#stream(from), {
        signal: AbortSignal.any([signal, stop.signal]),
        ...(this.sharedLog && { log: this.sharedLog(from) }),
        onMessage: { 'banyan.handover': this.#handOver(to) },
        onOpen: () => {
          this.#standstill = undefined;
          this.#log.info({ msg: 'carrying', from, to });
        },
        onProgress: ({ rows }) => {
          // They are counted from each opening.
          this.rows += rows < before ? rows : rows - before;
          before = rows;
        },
        onProblem: (error) => this.#stopped(error),
        onWarning: (message) => this.#log.warn({ msg: message, from }),
      });
      if (end !== 'message') return;
      failPoint('bridge-before-turn');
      this.#log.info({ msg: 'turning round', from: to, to: from });
    } finally {
      stop.abort();
      await watch;
    }
  }

  #handOver(to: Side): MessageHandler {
    return async (tx, content) => {
      const message = HandOver.safeParse(parsed(content));
      if (!message.success || message.data.context !== this.context || message.data.to !== to) return;
      const { epoch } = message.data;
      // Any role may write a message into the log; the source's own row says whether it was closed.
      const source = await this.#settledOwner(otherSide(to));
      if (source.open || source.epoch < epoch) {
        this.#log.warn({ msg: 'no hand-over: the source is not closed', epoch, source });
        return;
      }
      failPoint('bridge-before-open');
      const { rows } = await tx.query<{ opened: boolean }>(
        `select ${pg.escapeIdentifier(this.context)}.banyan_open($1) as opened`,
        [epoch],
      );
      failPoint('bridge-after-open');
      const opened = rows[0]?.opened === true;
      this.#log.info({ msg: opened ? 'opening' : 'hand-over was called off', side: to, epoch });
      // What the old owner's log holds after this is not the context's any more.
      return opened ? 'end' : undefined;
    };
  }

  /** Ends the run when the owner turns out to be another, and keeps the idle direction's slot from pinning the log. */
  async #watch(from: Side, owners: Owners | undefined, stop: AbortController): Promise<void> {
    const before = owners?.[otherSide(from)];
    for (;;) {
      await sleep(WATCH_MS, undefined, { signal: stop.signal }).catch(() => {});
      if (stop.signal.aborted) return;
      try {
        // Known for the first time: begun again, with what the other side says.
        if (sourceOf(await this.#owners()) !== from || !before) stop.abort();
        else await this.#skipIdle(otherSide(from), before);
      } catch (err) {
        // The stream itself meets whatever is wrong with the databases, and tells.
        this.#log.debug({ msg: 'could not look after the idle stream', err });
      }
    }
  }

  /**
   * The stream of the direction that is not in use: everything in its source's log came from this bridge, as long as
   * that side has not been the owner in between. Its epoch, which grows with every change, tells.
   */
  async #skipIdle(from: Side, before: OwnerRow): Promise<void> {
    const stream = this.#stream(from);
    const clients = { source: this.#pools[from], target: this.#pools[otherSide(from)] };
    const state = await streamState(stream, clients);
    if (state.state !== 'prepared' || state.retainedBytes < IDLE_BYTES) return;
    const { rows } = await this.#pools[from].query<{ lsn: string }>(
      `select (pg_current_wal_flush_lsn() - '0/0')::text as lsn`,
    );
    const now = await this.#owner(from);
    if (now.open || now.epoch !== before.epoch) return;
    await skipTo(stream, BigInt(rows[0]!.lsn));
  }

  #stream(from: Side): Stream {
    return {
      name: streamName(this.context, from, this.urls[from]),
      source: this.urls[from],
      target: this.urls[otherSide(from)],
      schema: this.context,
    };
  }

  async #owners(): Promise<Owners> {
    const [monolith, service] = await Promise.all([this.#owner('monolith'), this.#owner('service')]);
    return { monolith, service };
  }

  #owner(side: Side): Promise<OwnerRow> {
    return this.#ownerFrom(side, 'banyan_owner');
  }

  /** As a command's fence sees the row: behind whoever is closing it, whose message is here before others can see the row. */
  #settledOwner(side: Side): Promise<OwnerRow> {
    return this.#ownerFrom(side, 'banyan_settled()');
  }

  async #ownerFrom(side: Side, relation: string): Promise<OwnerRow> {
    const { rows } = await this.#pools[side].query<{ open: boolean; epoch: string }>(
      `select open, epoch::text from ${pg.escapeIdentifier(this.context)}.${relation} as owner`,
    );
    const [row] = rows;
    if (!row) throw new Error(`The database of the ${side} has no owner row for ${this.context}`);
    return { open: row.open, epoch: Number(row.epoch) };
  }

  #stopped(error: Error): void {
    // It is tried again and again: said once per reason.
    if (this.#standstill !== error.message) this.#log.warn({ msg: 'nothing flows', from: this.#from, err: error });
    this.#standstill = error.message;
  }
}

function parsed(content: string): unknown {
  try {
    return JSON.parse(content);
  } catch {
    return undefined;
  }
}
