import { type Consumer, type ConsumerMessages, type JsMsg, PubHeaders } from '@nats-io/jetstream';
import { Logger } from '@nestjs/common';
import { DomainError } from '@banyan/kernel';
import { withRemoteParent } from '@banyan/platform/telemetry';
import { LRUCache } from 'lru-cache';
import { EventEnvelope, type GivenBack, type Receipt } from './envelope.js';
import { hasMoved } from './failures.js';
import type { Nats } from './nats.js';
import { outOfScope } from './scope.js';

/** What takes the events of one subscriber. */
export interface Taker {
  /** May this process take them now? Only the owner's may. */
  active(): boolean;
  /** Tries to become the one process that takes them; see `takeTurn`. */
  turn(lost: () => void): Promise<(() => Promise<void>) | undefined>;
  /** Applies them, each once. Rejects with a DomainError when it cannot be said of any. */
  receive(events: EventEnvelope[]): Promise<Receipt[]>;
  /** Back to the outbox of the context that has published them. Rejects when it has not taken them. */
  giveBack(producer: string, back: GivenBack[]): Promise<void>;
}

export interface TakingOptions {
  /** Applied in one transaction, at most. */
  batch: number;
  /** Tries before an event goes back and is parked. */
  attempts: number;
  /** First back-off; doubles with every try, with full jitter, up to a minute, ms. */
  backoffMs: number;
  /** How long an event waits here for the one before it, ms; then it waits in its outbox. */
  patienceMs: number;
  /** How many may wait here for long, for whatever reason: they take room from those that need not. */
  waiting: number;
}

export const takingDefaults: TakingOptions = {
  batch: 200,
  attempts: 10,
  backoffMs: 100,
  patienceMs: 10_000,
  waiting: 200,
};

/** Where the events come from. */
export interface Tap {
  nats: Nats;
  /** How often the broker is told that what was delivered is still being worked on, ms. */
  keepAliveMs: number;
  /** The durable consumer, or undefined when there is nothing to take. Rejects when it is not as it should be. */
  open(): Promise<Consumer | undefined>;
}

/** A question for messages stays open this long, ms: twice that, and a broker that says nothing is asked again. */
const ASK = 5_000;
/** Looks again whether the context is here, when nobody tells; and whether there is a stream, ms. */
const LOOK = 1_000;
const LOOK_FOR_STREAM = 10_000;

/** With many here, one that has waited this long for the one before it need not wait here, ms. */
const LONG = 2_000;
/** When an event is tried again whose turn it was not, at first, ms. */
const SOON = 10;
/** When an outbox that was not there is tried again, ms. */
const AGAIN = 1_000;

/** An event that is here: nobody else has it meanwhile. */
interface Held {
  event: EventEnvelope;
  /** More than one when it was published twice. */
  messages: JsMsg[];
  /** When it is to be tried, ms since the epoch. */
  due: number;
  /** Since when it misses the one before it. */
  gapSince: number | undefined;
}

/**
 * Takes one subscriber's events from its stream, in one of its processes at a time: a batch is one transaction, and is
 * acknowledged after it. What fails, or comes before the one before it, is kept here and tried again; what failed too
 * often goes back to its outbox, and so does what waits too long behind it.
 */
export class EventConsumer {
  /** What is wrong, for people; undefined: nothing. */
  fault: string | undefined;
  readonly #log: Logger;
  readonly #options: TakingOptions;
  /** By the event's id, in the order they came. */
  readonly #held = new Map<string, Held>();
  /** Who comes behind an event. */
  readonly #behind = new Map<string, Held>();
  /** Tries of events that have failed here. */
  readonly #failures = new LRUCache<string, number>({ max: 10_000 });
  /** Events that went back: who comes behind one need not wait for it. */
  readonly #returned = new LRUCache<string, true>({ max: 10_000 });
  #messages: ConsumerMessages | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;
  /** Is it this process's turn? */
  #mine = false;
  #onStop: (() => void)[] = [];
  /** End a pause: of the whole, of whoever asks for messages, of whoever applies them. */
  readonly #wakes = { run: () => {}, room: () => {}, work: () => {} };

  constructor(
    private readonly tap: Tap,
    private readonly subscriber: string,
    private readonly taker: Taker,
    options: Partial<TakingOptions> = {},
  ) {
    this.#log = new Logger(`events.${subscriber}`);
    this.#options = { ...takingDefaults, ...options };
  }

  start(onStop: () => void): void {
    // A question that was open then is answered by nobody.
    const forget = this.tap.nats.onChange(() => {
      this.#messages?.stop();
      this.#wakes.run();
    });
    this.#onStop = [onStop, forget];
    this.#running = outOfScope(() => this.#run());
  }

  /** The context may have come here, or have left. */
  wake(): void {
    if (!this.taker.active()) this.#leave();
    this.#wakes.run();
  }

  /** Takes no more, finishes what is being applied, and leaves the rest to other processes. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const act of this.#onStop.splice(0)) act();
    this.#leave();
    this.#wakes.run();
    await this.#running;
  }

  get #here(): boolean {
    return !this.#stopped && this.#mine && this.taker.active();
  }

  #leave(): void {
    this.#messages?.stop();
    this.#wakes.room();
    this.#wakes.work();
  }

  async #run(): Promise<void> {
    for (let failed = 0; !this.#stopped;) {
      if (!this.taker.active()) {
        this.fault = undefined;
        await this.#pause('run', LOOK);
        continue;
      }
      if (!this.tap.nats.connected) {
        this.fault = `NATS at ${this.tap.nats.where} is away`;
        await this.#pause('run', LOOK);
        continue;
      }
      let release: (() => Promise<void>) | undefined;
      try {
        release = await this.taker.turn(() => {
          this.#mine = false;
          this.#leave();
        });
        this.#mine = release !== undefined;
        const consumer = this.#mine ? await this.tap.open() : undefined;
        this.fault = undefined;
        failed = 0;
        if (consumer) await this.#takeFrom(consumer);
        else await this.#pause('run', this.#mine ? LOOK_FOR_STREAM : LOOK * (0.5 + Math.random()));
      } catch (error) {
        if (!this.tap.nats.connected) continue;
        this.fault = String((error as Error)?.message ?? error);
        if (failed++ === 0) this.#log.warn({ msg: `events for ${this.subscriber} are not taken`, reason: this.fault });
        await this.#pause('run', Math.min(10_000, 100 * 2 ** failed) * (0.5 + Math.random() / 2));
      } finally {
        await release?.();
      }
    }
  }

  #pause(who: 'run' | 'room' | 'work', ms: number): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wakes[who] = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Until the context leaves, the process stops, or the stream or the connection is gone. */
  async #takeFrom(consumer: Consumer): Promise<void> {
    const tap = { open: true };
    const working = this.#work(tap);
    // What waits here, or is being applied, is not lost: the broker hears of it before it thinks so.
    const alive = setInterval(() => {
      for (const { messages } of this.#held.values()) for (const message of messages) say(() => message.working());
    }, this.tap.keepAliveMs);
    try {
      while (this.#here && this.tap.nats.connected) {
        // No more is asked for than can be taken soon: the rest is for other processes.
        const room = 2 * this.#options.batch - this.#held.size;
        if (room < this.#options.batch / 2) {
          await this.#pause('room', LOOK);
          continue;
        }
        this.#messages = await consumer.fetch({ max_messages: room, expires: ASK });
        if (!this.#here) this.#messages.stop();
        for await (const message of this.#messages) {
          this.#came(message);
          this.#wakes.work();
        }
      }
    } finally {
      this.#messages = undefined;
      tap.open = false;
      this.#wakes.work();
      await working;
      clearInterval(alive);
      for (const { messages } of this.#held.values()) for (const message of messages) say(() => message.nak());
      this.#held.clear();
      this.#behind.clear();
    }
  }

  #came(message: JsMsg): void {
    const event = read(message);
    if (!event) return this.#unreadable(message);
    const held = this.#held.get(event.id);
    if (held) return void held.messages.push(message);
    const fresh = { event, messages: [message], due: 0, gapSince: undefined };
    this.#held.set(event.id, fresh);
    if (event.previous !== null) this.#behind.set(event.previous, fresh);
  }

  async #work(tap: { open: boolean }): Promise<void> {
    while (tap.open && this.#here) {
      const batch = this.#due();
      if (batch.length) {
        await this.#take(batch);
        this.#wakes.room();
      } else {
        const next = Math.min(LOOK, ...[...this.#held.values()].map(({ due }) => due - Date.now()));
        await this.#pause('work', Math.max(5, next));
      }
    }
  }

  /** What can be tried now, a batch at most. What comes behind one that is held and cannot is left, too. */
  #due(): Held[] {
    const now = Date.now();
    const batch: Held[] = [];
    const chosen = new Set<string>();
    for (const held of this.#held.values()) {
      if (held.due > now) continue;
      if (batch.length >= this.#options.batch) break;
      const { id, previous } = held.event;
      const before = previous !== null && !chosen.has(previous) ? this.#held.get(previous) : undefined;
      if (before && !this.#patienceIsOver(held)) {
        held.gapSince ??= now;
        held.due = Math.max(before.due, now + SOON);
      } else {
        batch.push(held);
        chosen.add(id);
      }
    }
    // One that came back to the stream may have come behind those that wait for it.
    return batch.sort(inOrder);
  }

  async #take(batch: Held[]): Promise<void> {
    let receipts: Receipt[];
    try {
      receipts = await this.#receive(batch.map(({ event }) => event));
    } catch (error) {
      // Nothing is known of any: the database is away, or the context has left.
      const moved = hasMoved(error);
      if (!moved && !(DomainError.is(error) && error.kind === 'unavailable'))
        this.#log.error({ msg: `events for ${this.subscriber} could not be taken`, err: error });
      for (const held of batch) held.due = Date.now() + (moved ? 50 : 250) * (1 + Math.random());
      return;
    }
    const said = new Map(receipts.map((receipt) => [receipt.id, receipt]));
    const back: { held: Held; given: GivenBack }[] = [];
    const missing: Held[] = [];
    for (const held of batch) {
      const receipt = said.get(held.event.id);
      if (receipt?.verdict === 'applied' || receipt?.verdict === 'duplicate') {
        this.#done(held);
        continue;
      }
      const given = receipt?.verdict === 'failed' ? this.#failed(held, receipt.error) : this.#gap(held);
      if (given) back.push({ held, given });
      else if (receipt?.verdict !== 'failed') missing.push(held);
    }
    this.#againTogether(missing);
    if (back.length) await this.#giveBack(back);
  }

  #receive(events: EventEnvelope[]): Promise<Receipt[]> {
    const parent = events[0]!.traceparent;
    const receive = () => this.taker.receive(events);
    return parent ? withRemoteParent(parent, `take for ${this.subscriber}`, undefined, receive) : receive();
  }

  /** Tries it again later, or answers what its outbox is to be told. */
  #failed(held: Held, error: string): GivenBack | undefined {
    const { attempts, backoffMs } = this.#options;
    const { id } = held.event;
    const failures = (this.#failures.get(id) ?? 0) + 1;
    this.#failures.set(id, failures);
    // Each process counts for itself; and a message that comes again and again may be what ends them.
    if (failures >= attempts || held.messages[0]!.info.deliveryCount >= 5 * attempts)
      return { eventId: id, subscriber: this.subscriber, state: 'parked', attempts: failures, error };
    const delay = Math.random() * Math.min(60_000, backoffMs * 2 ** failures);
    held.due = Date.now() + delay;
    if (this.#crowded) this.#forget(held, (message) => message.nak(Math.ceil(delay)));
    return undefined;
  }

  /** Likewise, for one whose predecessor has not come: another process has it, or it failed, or it is lost. */
  #gap(held: Held): GivenBack | undefined {
    held.gapSince ??= Date.now();
    if (!this.#patienceIsOver(held)) return undefined;
    return { eventId: held.event.id, subscriber: this.subscriber, state: 'pending', attempts: 0, error: 'gap' };
  }

  /** At one time: each at its own, they would go in as many transactions. Mostly another process has those before them. */
  #againTogether(missing: Held[]): void {
    const waited = Math.max(0, ...missing.map(({ gapSince }) => Date.now() - gapSince!));
    const due = Date.now() + Math.min(300, Math.max(SOON, waited / 4)) * (0.5 + Math.random());
    for (const held of missing) held.due = due;
  }

  #patienceIsOver({ event: { previous }, gapSince = Infinity }: Held): boolean {
    const waited = Date.now() - gapSince;
    return (
      (previous !== null && this.#returned.has(previous)) ||
      waited >= this.#options.patienceMs ||
      (waited >= LONG && this.#crowded)
    );
  }

  get #crowded(): boolean {
    return this.#held.size > this.#options.waiting;
  }

  /** Not one of ours, or of a version to come: nobody here can ever take it. */
  #unreadable(message: JsMsg): void {
    const eventId = message.headers?.get(PubHeaders.MsgIdHdr);
    this.#log.error({ msg: 'a message that cannot be read', subject: message.subject, eventId });
    if (!eventId) return say(() => message.term());
    // banyan.events.<subscriber>.<producer>.<Event>
    const producer = message.subject.split('.')[3]!;
    const given = { eventId, subscriber: this.subscriber, state: 'parked', attempts: 1, error: 'unreadable' } as const;
    this.taker.giveBack(producer, [given]).then(
      () => say(() => message.ack()),
      () => say(() => message.nak(AGAIN)),
    );
  }

  async #giveBack(back: { held: Held; given: GivenBack }[]): Promise<void> {
    const byProducer = Map.groupBy(back, ({ held }) => held.event.type.slice(0, held.event.type.indexOf('.')));
    for (const [producer, theirs] of byProducer) {
      try {
        await this.taker.giveBack(
          producer,
          theirs.map(({ given }) => given),
        );
        for (const { held } of theirs) {
          this.#returned.set(held.event.id, true);
          this.#done(held);
        }
      } catch (error) {
        this.#log.warn({ msg: `${producer} does not take its events back`, reason: String((error as Error)?.message) });
        for (const { held } of theirs) held.due = Date.now() + AGAIN * (0.5 + Math.random());
      }
    }
  }

  #done(held: Held): void {
    this.#forget(held, (message) => message.ack());
    this.#failures.delete(held.event.id);
    const next = this.#behind.get(held.event.id);
    if (next) next.due = 0;
    this.#behind.delete(held.event.id);
  }

  #forget({ event: { id, previous }, messages }: Held, tell: (message: JsMsg) => void): void {
    this.#held.delete(id);
    if (previous !== null) this.#behind.delete(previous);
    for (const message of messages) say(() => tell(message));
  }
}

/** What the broker does not hear it finds out by waiting: the connection may be closed by now. */
function say(word: () => void): void {
  try {
    word();
  } catch {
    // it comes again, and the inbox has it
  }
}

function read(message: JsMsg): EventEnvelope | undefined {
  try {
    return EventEnvelope.safeParse(message.json()).data;
  } catch {
    return undefined;
  }
}

const inOrder = ({ event: a }: Held, { event: b }: Held): number =>
  a.subject === b.subject ? a.aggregateversion - b.aggregateversion : a.subject < b.subject ? -1 : 1;
