import { type Consumer, type ConsumerMessages, type JsMsg, PubHeaders } from '@nats-io/jetstream';
import { Logger } from '@nestjs/common';
import { DomainError, reasonOf } from '@banyan/kernel';
import { withRemoteParent } from '@banyan/platform/telemetry';
import { EventEnvelope, type GivenBack, type Receipt } from './envelope.js';
import { hasMoved } from './failures.js';
import { type Held, HeldEvents, type HoldingOptions } from './held-events.js';
import { type Nats, soon } from './nats.js';
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

export type TakingOptions = HoldingOptions;

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

/** A question for messages stays open this long, ms; a broker that says nothing for as long again is asked anew. */
const ASK = 5_000;
/** Looks again whether the context is here, when nobody tells; and whether there is a stream, ms. */
const LOOK = 1_000;
const LOOK_FOR_STREAM = 10_000;
/** When an outbox that was not there is tried again, ms. */
const AGAIN = 1_000;

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
  readonly #held: HeldEvents<JsMsg>;
  /** What is on its way back to an outbox: one that is away holds up nobody else's events. */
  readonly #givingBack = new Set<Promise<void>>();
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
    this.#held = new HeldEvents(this.#options);
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
      let pauseMs = 0;
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
        else pauseMs = this.#mine ? LOOK_FOR_STREAM : LOOK * (0.5 + Math.random());
      } catch (error) {
        if (!this.tap.nats.connected) continue;
        this.fault = reasonOf(error);
        if (failed++ === 0) this.#log.warn({ msg: `events for ${this.subscriber} are not taken`, reason: this.fault });
        pauseMs = Math.min(10_000, 100 * 2 ** failed) * (0.5 + Math.random() / 2);
      } finally {
        this.#mine = false;
        await release?.();
      }
      // Whoever can do more with the turn has it meanwhile.
      if (pauseMs > 0) await this.#pause('run', pauseMs);
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
    const held = this.#held;
    const tap = { open: true };
    const working = this.#work(tap);
    // What waits here, or is being applied, is not lost: the broker hears of it before it thinks so.
    const alive = setInterval(() => {
      for (const message of held.messages()) say(() => message.working());
    }, this.tap.keepAliveMs);
    try {
      while (this.#here && this.tap.nats.connected) {
        // No more is asked for than can be taken soon: the rest is for other processes.
        const room = 2 * this.#options.batch - held.size;
        if (room < this.#options.batch / 2) {
          await this.#pause('room', LOOK);
          continue;
        }
        this.#messages = await consumer.fetch({ max_messages: room, expires: ASK });
        if (!this.#here) this.#messages.stop();
        for await (const message of this.#messages) {
          const event = read(message);
          if (event) held.came(event, message);
          else this.#unreadable(message);
          this.#wakes.work();
        }
      }
    } finally {
      this.#messages = undefined;
      tap.open = false;
      this.#wakes.work();
      await working;
      // What is told twice is taken once.
      await soon(Promise.all(this.#givingBack));
      clearInterval(alive);
      for (const message of held.messages()) say(() => message.nak());
      held.clear();
    }
  }

  async #work(tap: { open: boolean }): Promise<void> {
    while (tap.open && this.#here) {
      const batch = this.#held.due(Date.now());
      if (batch.length) {
        await this.#take(batch);
        this.#wakes.room();
      } else {
        await this.#pause('work', this.#held.waits(Date.now()));
      }
    }
  }

  async #take(batch: Held<JsMsg>[]): Promise<void> {
    let receipts: Receipt[];
    try {
      receipts = await this.#receive(batch.map(({ event }) => event));
    } catch (error) {
      // Nothing is known of any: the database is away, or the context has left.
      const moved = hasMoved(error);
      if (!moved && !(DomainError.is(error) && error.kind === 'unavailable'))
        this.#log.error({ msg: `events for ${this.subscriber} could not be taken`, err: error });
      return this.#held.again(batch, (moved ? 50 : 250) * (1 + Math.random()), Date.now());
    }
    const now = Date.now();
    const said = new Map(receipts.map((receipt) => [receipt.id, receipt]));
    const missing: Held<JsMsg>[] = [];
    const back: [Held<JsMsg>, GivenBack][] = [];
    for (const held of batch) {
      const receipt = said.get(held.event.id);
      if (receipt?.verdict === 'applied' || receipt?.verdict === 'duplicate') this.#done(held);
      else if (receipt?.verdict === 'failed') this.#failed(held, receipt.error, now, back);
      else missing.push(held);
    }
    for (const held of this.#held.missed(missing, now))
      back.push([held, { ...this.#given(held), state: 'pending', attempts: 0, error: 'gap' }]);
    this.#giveBack(back);
  }

  #receive(events: EventEnvelope[]): Promise<Receipt[]> {
    const parent = events[0]!.traceparent;
    const receive = () => this.taker.receive(events);
    return parent ? withRemoteParent(parent, `take for ${this.subscriber}`, undefined, receive) : receive();
  }

  /** Tries it again later, or has it parked. */
  #failed(held: Held<JsMsg>, error: string, now: number, back: [Held<JsMsg>, GivenBack][]): void {
    const { failures, enough, delayMs } = this.#held.failed(held, now);
    // Each process counts for itself; and a message that comes again and again may be what ends them.
    if (enough || held.messages[0]!.info.deliveryCount >= 5 * this.#options.attempts)
      back.push([held, { ...this.#given(held), state: 'parked', attempts: failures, error }]);
    else if (this.#held.crowded) {
      this.#held.letGo(held);
      for (const message of held.messages) say(() => message.nak(Math.ceil(delayMs)));
    }
  }

  #given({ event }: Held<JsMsg>) {
    return { eventId: event.id, subscriber: this.subscriber };
  }

  /** Not one of ours, or of a version to come: nobody here can ever take it. */
  #unreadable(message: JsMsg): void {
    const eventId = message.headers?.get(PubHeaders.MsgIdHdr);
    this.#log.error({ msg: 'a message that cannot be read', subject: message.subject, eventId });
    // Nor does any outbox know it.
    if (!isEventId(eventId)) return say(() => message.term());
    // banyan.events.<subscriber>.<producer>.<Event>
    const producer = message.subject.split('.')[3]!;
    const given = { eventId, subscriber: this.subscriber, state: 'parked', attempts: 1, error: 'unreadable' } as const;
    this.taker.giveBack(producer, [given]).then(
      () => say(() => message.ack()),
      () => say(() => message.nak(AGAIN)),
    );
  }

  /** Nobody waits for it but these events themselves: an outbox that is away may take its time to say so. */
  #giveBack(back: [Held<JsMsg>, GivenBack][]): void {
    for (const [held] of back) held.due = Infinity;
    const byProducer = Map.groupBy(back, ([{ event }]) => event.type.slice(0, event.type.indexOf('.')));
    for (const [producer, theirs] of byProducer) {
      const work = this.#returnTo(producer, theirs).finally(() => {
        this.#givingBack.delete(work);
        this.#wakes.work();
        this.#wakes.room();
      });
      this.#givingBack.add(work);
    }
  }

  async #returnTo(producer: string, theirs: [Held<JsMsg>, GivenBack][]): Promise<void> {
    try {
      await this.taker.giveBack(
        producer,
        theirs.map(([, given]) => given),
      );
      for (const [held] of theirs) {
        this.#held.returned(held);
        for (const message of held.messages) say(() => message.ack());
      }
    } catch (error) {
      this.#log.warn({ msg: `${producer} does not take its events back`, reason: reasonOf(error) });
      const held = theirs.map(([each]) => each);
      this.#held.again(held, AGAIN * (0.5 + Math.random()), Date.now());
    }
  }

  #done(held: Held<JsMsg>): void {
    this.#held.done(held);
    for (const message of held.messages) say(() => message.ack());
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

const isEventId = (text: string | undefined): text is string =>
  /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text ?? '');
