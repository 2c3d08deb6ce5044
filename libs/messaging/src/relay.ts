import { Logger } from '@nestjs/common';
import { DomainError, reasonOf } from '@banyan/kernel';
import { metrics, withRemoteParent } from '@banyan/platform/telemetry';
import type { EventEnvelope, GivenBack, Receipt } from './envelope.js';
import { hasMoved } from './failures.js';
import type { EventStreams, Publication } from './jetstream.js';
import { Outbox, type Outcome, type Row } from './outbox.js';
import { outOfScope } from './scope.js';
import type { UnitOfWork } from './unit-of-work.js';

/** How an event reaches a subscriber: `direct` calls its inbox, here or elsewhere, and waits for the receipts. */
export type Deliver = (subscriber: string, events: EventEnvelope[]) => Promise<Receipt[]>;

/** The broker's streams, as far as a relay uses them. */
export type Streams = Pick<EventStreams, 'publishing' | 'connected' | 'publish' | 'state' | 'onChange'>;

export interface RelayOptions {
  /** Deliveries claimed at once. */
  batch: number;
  /** How long a claim lasts: after that a dead relay's deliveries are taken by another, ms. */
  leaseMs: number;
  /** Tries before a delivery is parked. */
  attempts: number;
  /** First back-off; doubles with every try, with full jitter, up to a minute, ms. */
  backoffMs: number;
  /** The sweep: finds what no wake-up told of, ms. */
  sweepMs: number;
  /** How often it looks whether streams still are what they were, ms. */
  watchMs: number;
}

export const relayDefaults: RelayOptions = {
  batch: 500,
  leaseMs: 10_000,
  attempts: 10,
  backoffMs: 100,
  sweepMs: 1_000,
  watchMs: 5_000,
};

/** The longest wait for an event that has to come first, and for a stream that takes nothing, ms. */
const GAP = 5_000;
const PAUSE = 15_000;
/** For what waits for one, ms: it is brought forward, a batch to try it, and everything when that is taken. */
const ASIDE = 120_000;

/** A subscriber whose stream takes nothing just now: full, or not there. */
interface Pause {
  tries: number;
  until: number;
  error: string;
}

/**
 * Moves one context's events from its outbox to the subscribers: at least once, in order per aggregate. With streams that
 * are `publishing`, into those, which is the end of it here; what comes back from them it delivers itself.
 */
export class Relay {
  readonly #log: Logger;
  readonly #outbox: Outbox;
  #running: Promise<void> | undefined;
  #again = false;
  #stopped = true;
  #timer: NodeJS.Timeout | undefined;
  /** Whether this process had the context when it was last asked; undefined before that. */
  #active: boolean | undefined;
  readonly #parked: { add(n?: number): void };
  readonly #paused = new Map<string, Pause>();
  /** Streams that the outbox knows of, by subscriber and incarnation. */
  readonly #noted = new Set<string>();
  #watchAt = 0;
  /** Streams that this relay has looked at since it last had reason to doubt them. */
  #looked = new Set<string>();
  #forget: (() => void) | undefined;

  constructor(
    private readonly unit: UnitOfWork,
    private readonly deliver: Deliver,
    private readonly options: RelayOptions = relayDefaults,
    /** Asked before every round: only the owner's relay runs. */
    private readonly active: () => boolean = () => true,
    private readonly streams?: Streams,
  ) {
    this.#log = new Logger(`relay.${unit.context}`);
    this.#outbox = new Outbox(unit);
    this.#parked = metrics.counter('banyan_outbox_parked_total', 'Deliveries given up on and parked', {
      context: unit.context,
    });
  }

  start(): void {
    this.#stopped = false;
    metrics.watchOutbox(this.unit.context, () => this.backlog());
    this.#forget = this.streams?.onChange((connected) => {
      if (!connected) return;
      // It may have come back with less, or as another one.
      // Another set: a look that is under way was at what there was before.
      this.#looked = new Set();
      this.#watchAt = 0;
      for (const pause of this.#paused.values()) pause.until = 0;
      this.wake();
    });
    this.wake();
  }

  /** Finishes the round that is running; what is left is picked up by the next start, or by another instance. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#forget?.();
    clearTimeout(this.#timer);
    await this.#running;
  }

  /** There may be something to deliver: told after each commit, and by the sweep. */
  wake(): void {
    if (this.#stopped) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    this.#running = outOfScope(() => this.#drain()).finally(() => {
      this.#running = undefined;
      if (this.#stopped) return;
      if (this.#again) {
        this.#again = false;
        this.wake();
      } else {
        this.#timer = setTimeout(() => this.wake(), this.options.sweepMs * (0.75 + Math.random() / 2));
      }
    });
  }

  /**
   * Takes events back that a subscriber could not take from its stream: they are parked, or delivered from here, in their
   * order. Rejects when the context is owned elsewhere.
   */
  async takeBack(back: GivenBack[]): Promise<void> {
    const taken = await this.#outbox.takeBack(back);
    for (const { eventId, subscriber, state, error } of back) {
      if (state !== 'parked' || !taken.has(`${eventId} ${subscriber}`)) continue;
      this.#log.error({ msg: `parked for ${subscriber}`, eventId, reason: error });
      this.#parked.add();
    }
    this.wake();
  }

  /** Deliveries still to make, and how long the oldest has waited, in seconds. */
  backlog(): Promise<{ pending: number; oldestSeconds: number; parked: number }> {
    return this.#outbox.backlog();
  }

  async #drain(): Promise<void> {
    try {
      while (!this.#stopped && (await this.#entitled())) {
        await this.#watch();
        await this.#tryPaused();
        // What waits for the broker stays where it is, unclaimed.
        if (this.streams?.publishing && !this.streams.connected) return;
        const rows = await this.#outbox.claim(this.options.batch, this.options.leaseMs);
        if (!rows.length) return;
        await this.#round(rows);
        if (rows.length < this.options.batch && !this.#again) return;
        this.#again = false;
      }
    } catch (error) {
      if (!hasMoved(error)) this.#log.warn({ msg: 'outbox not reachable, trying again', err: error });
    }
  }

  /** Is this the owner's relay? Once it has become it, what lies in the leases of the former one is due at once. */
  async #entitled(): Promise<boolean> {
    const [before, now] = [this.#active, this.active()];
    if (now && before === false) await this.#outbox.takeOver();
    return (this.#active = now);
  }

  /** Are the streams that have taken events still the same? What they have lost since is due again. */
  async #watch(): Promise<void> {
    if (Date.now() < this.#watchAt || (this.streams && !this.streams.connected)) return;
    this.#watchAt = Date.now() + this.options.watchMs * (0.75 + Math.random() / 2);
    const looked = this.#looked;
    for (const subscriber of await this.#outbox.streamed()) {
      let state;
      try {
        state = await this.streams?.state(subscriber);
      } catch (error) {
        // Its server may have crashed, and this process be connected to another one.
        looked.delete(subscriber);
        this.#log.warn({ msg: `the stream of ${subscriber} does not tell its state`, reason: text(error) });
        continue;
      }
      const doubtful = !looked.has(subscriber);
      const again = await this.#outbox.saw(subscriber, state, doubtful);
      looked.add(subscriber);
      // What another process has set aside, which may be gone.
      if (doubtful && state && !this.#paused.has(subscriber)) await this.#outbox.hurry(subscriber);
      if (again)
        this.#log.log({ msg: `the stream of ${subscriber} may not have what it took: sent again`, events: again });
    }
  }

  async #round(rows: Row[]): Promise<void> {
    rows.sort((a, b) => (a.aggregate === b.aggregate ? a.version - b.version : a.aggregate < b.aggregate ? -1 : 1));
    const now = Date.now();
    const going = new Set<string>();
    const queues = new Map<string, Row[]>();
    const outcomes: Outcome[] = [];
    for (const row of rows) {
      const published = this.#published(row);
      const pause = published ? this.#paused.get(row.subscriber) : undefined;
      if (pause && pause.until > now) {
        outcomes.push(aside(row, pause.error));
        continue;
      }
      const way = `${row.subscriber} ${published}`;
      const waits = row.previous_state === 'pending' || row.previous_state === 'parked';
      if (waits && !going.has(`${row.previous} ${way}`)) {
        // Behind an event of its own aggregate. Not a try: back it goes, for longer when that event is parked.
        outcomes.push(later(row, row.previous_state === 'parked' ? 15_000 : this.options.backoffMs, null));
      } else {
        going.add(`${row.event_id} ${way}`);
        const queue = queues.get(way);
        if (queue) queue.push(row);
        else queues.set(way, [row]);
      }
    }
    await Promise.all(
      [...queues.values()].map(async (queue) => {
        const [{ subscriber }] = queue as [Row];
        const sent = this.#published(queue[0]!) ? this.#publish(subscriber, queue) : this.#send(subscriber, queue);
        outcomes.push(...(await sent));
      }),
    );
    await this.#outbox.settle(outcomes);
  }

  #published(row: Row): boolean {
    return this.streams?.publishing === true && row.via !== 'direct';
  }

  async #publish(subscriber: string, queue: Row[]): Promise<Outcome[]> {
    let said: Publication[];
    try {
      said = await this.streams!.publish(
        subscriber,
        queue.map((row) => this.#envelope(row)),
      );
    } catch (error) {
      said = queue.map(({ event_id }) => ({ id: event_id, verdict: 'refused', error: text(error), silent: true }));
    }
    if (said.some((each) => each.verdict === 'refused' && each.silent)) this.#looked.delete(subscriber);
    for (const via of new Set(said.flatMap((each) => (each.verdict === 'published' ? [each.via] : [])))) {
      if (this.#noted.has(`${subscriber} ${via}`)) continue;
      // One that is new has lost nothing yet.
      if (await this.#outbox.note(subscriber, via)) this.#looked.add(subscriber);
      this.#noted.add(`${subscriber} ${via}`);
    }
    const refused = said.find(({ verdict }) => verdict === 'refused');
    if (refused?.verdict === 'refused')
      this.#pause(
        subscriber,
        refused.error,
        said.some(({ verdict }) => verdict === 'published'),
      );
    else if (this.#paused.delete(subscriber)) {
      this.#log.log({ msg: `the stream of ${subscriber} takes events again` });
      await this.#outbox.hurry(subscriber);
      this.#again = true;
    }
    return queue.map((row, index) => this.#settled(row, said[index]!));
  }

  #settled(row: Row, said: Publication): Outcome {
    const base = { row, delay: 0, error: null } as const;
    switch (said.verdict) {
      case 'published':
        return { ...base, state: 'done', uncounted: 0, via: said.via, seq: said.seq };
      case 'unfit':
        return { ...base, state: 'pending', uncounted: 1, error: said.error, via: 'direct', seq: null };
      case 'refused':
        return aside(row, said.error);
    }
  }

  /** With one batch now and then, and not with all that waits. */
  async #tryPaused(): Promise<void> {
    for (const [subscriber, { until }] of this.#paused)
      if (until <= Date.now()) await this.#outbox.hurry(subscriber, this.options.batch);
  }

  #pause(subscriber: string, error: string, tookSome: boolean): void {
    const before = this.#paused.get(subscriber)?.tries ?? 0;
    const tries = tookSome ? Math.max(1, before >> 1) : before + 1;
    const delay = Math.min(PAUSE, this.options.backoffMs * 2 ** tries) * (0.5 + Math.random() / 2);
    if (before === 0) this.#log.warn({ msg: `the stream of ${subscriber} takes no events`, reason: error });
    this.#paused.set(subscriber, { tries, until: Date.now() + delay, error });
  }

  async #send(subscriber: string, queue: Row[]): Promise<Outcome[]> {
    let receipts: Receipt[];
    try {
      receipts = await withRemoteParent(queue[0]!.traceparent ?? undefined, `deliver to ${subscriber}`, undefined, () =>
        this.deliver(
          subscriber,
          queue.map((row) => this.#envelope(row)),
        ),
      );
    } catch (error) {
      // The subscriber's side is not there: its fault is not the event's, so it is not counted against it.
      const delay = this.#backoff(Math.min(queue[0]!.attempts, 6));
      if (!DomainError.is(error)) this.#log.warn({ msg: `delivery to ${subscriber} failed`, err: error });
      return queue.map((row) => later(row, delay, text(error)));
    }
    const verdicts = new Map(receipts.map((receipt) => [receipt.id, receipt]));
    const missing = queue.filter(
      (row) => row.previous_state === 'done' && verdicts.get(row.event_id)?.verdict === 'gap',
    );
    // Rarely more than "it is on its way": a stream may hold it, or have lost it.
    if (missing.length) {
      const events = missing.map(({ previous }) => previous!);
      if (await this.#outbox.recover(subscriber, events))
        this.#log.warn({ msg: `${subscriber} has not got what its stream had taken: sent again` });
    }
    return queue.map((row) => this.#outcome(row, verdicts.get(row.event_id)));
  }

  #outcome(row: Row, receipt: Receipt | undefined): Outcome {
    if (receipt?.verdict === 'applied' || receipt?.verdict === 'duplicate')
      return { row, state: 'done', delay: 0, uncounted: 0, error: null, via: null, seq: null };
    if (receipt?.verdict === 'gap') {
      // The longer it has waited, the less often it is asked for: a stream may hold hundreds behind a poison event.
      const age = Date.now() - row.occurred_at.getTime();
      return later(row, this.#backoff(row.attempts) + Math.random() * Math.min(GAP, age / 4), 'gap');
    }
    const error = receipt?.verdict === 'failed' ? receipt.error : 'no receipt';
    if (receipt?.verdict === 'failed' && row.attempts >= this.options.attempts) {
      this.#log.error({ msg: `parked for ${row.subscriber}`, eventId: row.event_id, type: row.type, reason: error });
      this.#parked.add();
      return { row, state: 'parked', delay: 0, uncounted: 0, error, via: row.via, seq: null };
    }
    return { ...later(row, this.#backoff(row.attempts), error), uncounted: 0 };
  }

  #backoff(attempt: number): number {
    return Math.random() * Math.min(60_000, this.options.backoffMs * 2 ** attempt);
  }

  #envelope(row: Row): EventEnvelope {
    return {
      specversion: '1.0',
      id: row.event_id,
      source: `/banyan/${this.unit.context}`,
      type: row.type,
      subject: row.aggregate,
      time: row.occurred_at.toISOString(),
      datacontenttype: 'application/json',
      data: row.data,
      traceparent: row.traceparent ?? undefined,
      aggregateversion: row.version,
      previous: row.previous,
    };
  }
}

/** Not a try that counts: back it goes, by the way that it came. */
const later = (row: Row, delay: number, error: string | null): Outcome => ({
  row,
  state: 'pending',
  delay,
  uncounted: 1,
  error,
  via: row.via,
  seq: null,
});

const aside = (row: Row, error: string): Outcome => later(row, ASIDE * (1 + Math.random() / 4), error);

/* Kept with the row. */
const text = (error: unknown): string => reasonOf(error).slice(0, 500);
