import { randomUUID } from 'node:crypto';
import { type ConsumerMessages, jetstream } from '@nats-io/jetstream';
import { type LogItem, LogQueue } from './log-queue.js';
import type { LogSource } from './log-reader.js';
import { Tag, commitOf } from './pgoutput.js';
import { LogStream, type Place, type SharedLog, placeOf } from './shared-log.js';
import { BundleReader } from './bundle.js';
import { lsnText } from './stream.js';

const AHEAD_MESSAGES = 64;
/* A server that hangs is noticed after as long as this. */
const EXPIRES_MS = 10_000;
/* For how long the server remembers a follower that is gone. */
const FORGET_NS = 60e9;
/* Whoever publishes a transaction in parts does nothing else. */
const SILENT_MS = 15_000;

/** Where parts of a transaction begin that was never finished, and where what counts goes on. */
export type Abandoned = Map<string, number>;

/**
 * Follows a shared log from a mark on. Every message tells where the one before it ended, so what is missing is seen; the
 * session that meets a gap begins again at its mark, and there it is known whether anything is lost.
 */
export class LogFollower implements LogSource {
  readonly #bundles = new BundleReader();
  #messages: ConsumerMessages | undefined;
  #unsubscribe: () => void;
  readonly #queue = new LogQueue(() => this.#drained?.());
  #drained: (() => void) | undefined;
  #heardAt = Date.now();

  #seq: number | undefined;
  /** Everything before it was in the messages so far. */
  #to: bigint | undefined;
  /** The first message of a bundle whose last part has not come. */
  #opened: number | undefined;
  #part = 0;
  #skipUntil = 0;
  #isApplied = false;

  private constructor(
    private readonly mark: bigint,
    private readonly source: string,
    private readonly created: string,
    private readonly abandoned: Abandoned,
    { broker }: SharedLog,
  ) {
    this.#unsubscribe = broker.onChange(() => this.#fail(new Error('The connection to NATS was lost')));
  }

  /** Of that source, as `History` names it. Or why changes after the mark cannot be had any more. */
  static async open(log: SharedLog, mark: bigint, source: string, abandoned: Abandoned): Promise<LogFollower | string> {
    const there = await LogStream.open(log);
    const beginning = await beginningAt(there, mark, source);
    if (!beginning)
      return `the log in NATS lacks what comes after the mark ${lsnText(mark)}: it was emptied, it is of another source, or the target was away for too long`;
    const follower = new LogFollower(mark, source, beginning.created, abandoned, log);
    try {
      await follower.#begin(there, log, beginning.seq);
      return follower;
    } catch (error) {
      follower.close();
      throw error;
    }
  }

  async #begin({ manager }: LogStream, log: SharedLog, seq: number): Promise<void> {
    const { name } = await manager.consumers.add(log.stream, {
      name: `follower-${randomUUID()}`,
      ack_policy: 'none',
      deliver_policy: 'by_start_sequence',
      opt_start_seq: seq,
      mem_storage: true,
      inactive_threshold: FORGET_NS,
    });
    const consumer = await jetstream(log.broker.connection).consumers.get(log.stream, name);
    // With a server that came back without this consumer it ends, and the session begins again at its mark.
    const messages = await consumer.consume({
      max_messages: AHEAD_MESSAGES,
      expires: EXPIRES_MS,
      abort_on_missing_resource: true,
    });
    this.#messages = messages;
    void this.#pump(messages).catch((error: Error) => this.#fail(error));
  }

  take(): LogItem | undefined {
    const item = this.#queue.take();
    // A session in the middle of a transaction holds locks in the target.
    if (!item && this.#opened !== undefined && Date.now() - this.#heardAt > SILENT_MS)
      throw new Error('The rest of a transaction does not come');
    return item;
  }

  get isEmpty(): boolean {
    return this.#queue.isEmpty;
  }

  wait(ms: number): Promise<void> {
    return this.#queue.wait(ms);
  }

  /** Nobody waits for it: the mark is all that is known of a follower. */
  status(): void {}

  close(): void {
    this.#fail(new Error('The follower was closed'));
  }

  async #pump(messages: ConsumerMessages): Promise<void> {
    for await (const { seq, headers, data } of messages) {
      this.#heardAt = Date.now();
      this.#receive(seq, placeOf(headers), Buffer.from(data.buffer, data.byteOffset, data.byteLength));
      this.#queue.wakeUp();
      if (this.#queue.failed) return;
      // The log waits in NATS.
      if (this.#queue.isFull) await new Promise<void>((resolve) => (this.#drained = resolve));
    }
    throw new Error('The log in NATS ended');
  }

  #receive(seq: number, place: Place, content: Buffer): void {
    if (this.#seq !== undefined && seq !== this.#seq + 1) throw new Error('Messages of the log in NATS were left out');
    this.#seq = seq;
    if (place.source !== this.source) throw new Error('The log in NATS goes on with another source');
    if (seq < this.#skipUntil) return;
    if (place.part === 0) {
      if (this.#opened !== undefined) {
        // Some of it may be in the target's open transaction: that one has to go.
        this.abandoned.set(this.#nameOf(this.#opened), seq);
        throw new Error('A transaction was published anew from its beginning');
      }
      this.#skipUntil = this.abandoned.get(this.#nameOf(seq)) ?? 0;
      if (seq < this.#skipUntil) return;
      const follows = this.#to === undefined ? place.from <= this.mark : place.from === this.#to;
      if (!follows) throw new Error(`The log in NATS does not go on at ${lsnText(this.#to ?? this.mark)}`);
      this.#opened = seq;
      this.#part = 0;
      this.#bundles.begin();
    } else if (this.#opened === undefined || place.part !== this.#part + 1)
      throw new Error('The log in NATS has a transaction without its beginning');
    this.#part = place.part;
    for (const payload of this.#bundles.messages(content)) this.#message(payload);
    if (place.to === undefined) return;
    this.#opened = undefined;
    this.#to = place.to;
    this.#queue.reached({ lsn: place.to, at: place.at });
  }

  #nameOf(seq: number): string {
    return `${this.created} ${seq}`;
  }

  #message(payload: Buffer): void {
    const tag = payload[0];
    if (tag === Tag.begin) this.#isApplied = commitOf(payload) < this.mark;
    // A description counts beyond its transaction.
    if (this.#isApplied && tag !== Tag.relation) return;
    this.#queue.push(payload);
  }

  #fail(error: Error): void {
    if (!this.#queue.fail(error)) return;
    this.#unsubscribe();
    void this.#messages?.close();
    this.#drained?.();
  }
}

interface Beginning {
  /** When the stream was made: sequence numbers of an earlier one say nothing. */
  created: string;
  seq: number;
}

/** The message to begin with: the first one whose bundle does not end before the mark. undefined: it is gone. */
async function beginningAt(log: LogStream, mark: bigint, source: string): Promise<Beginning | undefined> {
  const info = await log.info();
  if (!info?.state.messages) throw new Error('Nobody has published the log in NATS yet');
  const { created } = info;
  const { first_seq: first, last_seq: last } = info.state;
  const placeAt = async (seq: number): Promise<Place> => {
    const place = await log.placeAt(seq);
    if (!place) throw new Error('The log in NATS was cut while it was looked at');
    return place;
  };
  // The messages of two sources are never in it together: the first one of another replaces all.
  if ((await placeAt(last)).source !== source) return undefined;
  if ((await placeAt(first)).from > mark) return undefined;
  // The last message that begins at the mark or before: near the end, mostly.
  let low = first;
  let high = last + 1;
  for (let step = 1; high - low > 1; step *= 2) {
    const seq = Math.max(low + 1, last + 1 - step);
    if ((await placeAt(seq)).from > mark) high = seq;
    else {
      low = seq;
      break;
    }
  }
  while (high - low > 1) {
    const seq = Math.floor((low + high) / 2);
    if ((await placeAt(seq)).from > mark) high = seq;
    else low = seq;
  }
  const found = await placeAt(low);
  const isBehind = found.to !== undefined && found.to <= mark;
  // Behind it and not the last one: the next one should begin where it ends.
  if (isBehind ? low < last : low - found.part < first) return undefined;
  return { created, seq: isBehind ? low + 1 : low - found.part };
}
