import { setTimeout as sleep } from 'node:timers/promises';
import { type JetStreamClient, jetstream } from '@nats-io/jetstream';
import { headers } from '@nats-io/nats-core';
import { failPoint } from '@banyan/platform/fail-point';
import { connect } from './connection.js';
import { type History, historyOf } from './history.js';
import type { LogReader } from './log-reader.js';
import { applicationName, startReader } from './open.js';
import { LogStream, PLACE_HEADER, type Place, type SharedLog, placeText, refuseAway } from './shared-log.js';
import { lossOf, lost, noteFeeds, readSlot } from './slot.js';
import type { Stream } from './stream.js';
import { Bundle } from './bundle.js';

/* Whole transactions join one message up to here while an earlier one is on its way. */
const BUNDLE_BYTES = 128 << 10;
const PART_BYTES = 256 << 10;
const HEADROOM_BYTES = 1 << 10;
const PUBLISH_MS = 5_000;
/* How often the server is asked how far it is, and the answer published: as a session does with a slot of its own. */
const ASK_MS = 20;
const QUIET_AFTER_MS = 1_000;
const QUIET_ASK_TICKS = 10;
const QUIET_PUBLISH_MS = 1_000;

export interface PublisherOptions {
  signal: AbortSignal;
  /** Ends whoever has the slot; otherwise waits for them. */
  takeOver: boolean;
  onOpen: () => void;
  onWarning: ((message: string) => void) | undefined;
}

/**
 * Reads the slot and publishes, one message at a time: what comes meanwhile goes into the next one. Each message names
 * the place in the stream that it is meant for, so one that comes late, or from a process that was paused while another
 * took over, is refused; with more than one on the way, a later one could slip in behind somebody else's.
 */
export class Publisher {
  readonly #bundle = new Bundle();
  readonly #client: JetStreamClient;
  readonly #partBytes: number;
  #failure: Error | undefined;
  #position: { lsn: bigint; at: number } | undefined;
  #part = 0;
  #activeAt = 0;
  #publishedAt = 0;
  #ticks = 0;

  private constructor(
    private readonly log: SharedLog,
    private readonly reader: LogReader,
    private readonly signal: AbortSignal,
    private readonly history: History,
    /** Everything before it is published. */
    private to: bigint,
    /** The last message in the stream. */
    private seq: number,
  ) {
    this.#client = jetstream(log.broker.connection, { timeout: PUBLISH_MS });
    this.#partBytes = Math.min(PART_BYTES, log.broker.maxPayload - HEADROOM_BYTES);
  }

  /** Until the signal; answers how far everything is published. Throws what broke; STREAM_LOST when the slot is. */
  static async run(stream: Stream, log: SharedLog, options: PublisherOptions): Promise<bigint> {
    const source = await connect(stream.source, { as: `${applicationName(stream)}:publish` });
    let reader: LogReader | undefined;
    try {
      const there = await LogStream.open(log);
      await there.declare(options.onWarning);
      const history = await historyOf(source, stream.name);
      const end = await there.end(history);
      const facts = await readSlot(source, stream.name);
      const confirmed = facts.slot?.confirmed ?? 0n;
      // Published behind what the source may forget, and not in another history of it: then it goes on from there.
      const unbroken = end.lsn !== undefined && end.lsn >= confirmed && end.lsn <= facts.now;
      const from = unbroken ? end.lsn! : confirmed;
      const loss = lossOf(facts, from);
      if (loss) throw lost(stream, loss);
      reader = await startReader(source, stream, from, options.takeOver);
      const { slot, feeds } = await readSlot(source, stream.name);
      if (!slot || slot.confirmed > from) throw new Error('Another process has read the slot meanwhile');
      // From here the slot may go ahead of every mark.
      if (feeds !== log.stream) await noteFeeds(source, stream.name, log.stream);
      const publisher = new Publisher(log, reader, options.signal, history, from, end.seq);
      // What the stream has does not lead here: whoever has not applied everything before this is to see that.
      if (!unbroken)
        await publisher.#put(Buffer.alloc(0), { from, to: from, part: 0, at: Date.now() }, 'instead of all');
      options.onOpen();
      return await publisher.#carry();
    } finally {
      reader?.close();
      await source.end().catch(() => {});
    }
  }

  async #carry(): Promise<bigint> {
    const unsubscribe = this.log.broker.onChange(
      () => (this.#failure ??= new Error('The connection to NATS was lost')),
    );
    const timer = setInterval(() => this.#ask(), ASK_MS);
    try {
      while (!this.signal.aborted) {
        if (this.#failure) throw this.#failure;
        const item = this.reader.take();
        if (!item) await this.#idle();
        else if ('payload' in item) {
          this.#bundle.add(item.payload);
          if (this.#bundle.bytes >= (this.#bundle.isOpen ? this.#partBytes : BUNDLE_BYTES)) await this.#publish();
        } else if (!this.#bundle.isOpen) this.#position = item;
      }
      if (!this.#bundle.isOpen && !this.#bundle.isEmpty) await this.#publish();
      this.reader.status({ applied: this.to, durable: this.to, ask: false });
      // The server has to read it before the connection ends.
      await sleep(5);
      return this.to;
    } finally {
      clearInterval(timer);
      unsubscribe();
    }
  }

  async #idle(): Promise<void> {
    const due = this.#isQuiet ? QUIET_PUBLISH_MS : 0;
    const moved = this.#position !== undefined && this.#position.lsn > this.to;
    if (!this.#bundle.isOpen && (!this.#bundle.isEmpty || (moved && Date.now() - this.#publishedAt >= due)))
      return this.#publish();
    await this.reader.wait(ASK_MS);
  }

  /** What there is: whole transactions, or as many full parts of the one that is open. */
  async #publish(): Promise<void> {
    const done = !this.#bundle.isOpen;
    if (!this.#bundle.isEmpty) this.#activeAt = Date.now();
    let content = this.#bundle.take();
    const from = this.to;
    while (content.length > this.#partBytes || (!done && content.length === this.#partBytes)) {
      await this.#put(content.subarray(0, this.#partBytes), { from, to: undefined, part: this.#part++, at: 0 });
      failPoint('bridge-between-parts');
      content = content.subarray(this.#partBytes);
    }
    if (!done) return this.#bundle.giveBack(content);
    // The server has said meanwhile that nothing more is to come before some later place.
    const end = this.#bundle.end ?? { lsn: from, at: Date.now() };
    const { lsn: to, at } = this.#position && this.#position.lsn > end.lsn ? this.#position : end;
    await this.#put(content, { from, to, part: this.#part, at });
    this.#bundle.clear();
    this.#part = 0;
    this.to = to;
    this.#position = undefined;
    failPoint('bridge-after-publish');
  }

  async #put(content: Buffer, place: Omit<Place, keyof History>, how?: 'instead of all'): Promise<void> {
    refuseAway(this.log);
    const head = headers();
    head.set(PLACE_HEADER, placeText({ ...place, ...this.history }));
    if (how) head.set('Nats-Rollup', 'all');
    const { stream, subject } = this.log;
    const ack = await this.#client.publish(subject, content, {
      headers: head,
      expect: { streamName: stream, lastSequence: this.seq },
    });
    this.seq = ack.seq;
    this.#publishedAt = Date.now();
  }

  get #isQuiet(): boolean {
    return Date.now() - this.#activeAt > QUIET_AFTER_MS;
  }

  #ask(): void {
    this.#ticks += 1;
    if (this.#isQuiet && this.#ticks % QUIET_ASK_TICKS !== 0) return;
    this.reader.status({ applied: this.to, durable: this.to, ask: true });
  }
}
