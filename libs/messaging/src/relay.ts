import { Logger } from '@nestjs/common';
import { DomainError } from '@banyan/kernel';
import { metrics, withRemoteParent } from '@banyan/platform/telemetry';
import type { EventEnvelope, Receipt } from './envelope.js';
import { hasMoved } from './failures.js';
import { outOfScope } from './scope.js';
import type { UnitOfWork } from './unit-of-work.js';

/** How an event reaches a subscriber: `direct` calls its inbox, here or elsewhere, and waits for the receipts. */
export type Deliver = (subscriber: string, events: EventEnvelope[]) => Promise<Receipt[]>;

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
}

export const relayDefaults: RelayOptions = {
  batch: 500,
  leaseMs: 10_000,
  attempts: 10,
  backoffMs: 100,
  sweepMs: 1_000,
};

interface Row {
  [column: string]: unknown;
  event_id: string;
  subscriber: string;
  type: string;
  aggregate: string;
  version: number;
  previous: string | null;
  data: unknown;
  traceparent: string | null;
  occurred_at: Date;
  attempts: number;
  previous_state: string | null;
}

/* What a crash of Postgres takes back of a claim or its settlement is delivered again, and the inbox has its row: so
   their commits need not wait for the disk (0.5 ms each). An event's effect does. */
const unhurried = `(select set_config('synchronous_commit', 'off', true)) as unhurried`;

/* Joined, the fence was asked again for every row. */
const onceAtFirst = (fence: string) => `(select count(*) from ${fence}, ${unhurried}) = 1`;

const claim = (fence: string) => `select c.* from banyan_claim($1, $2) c where ${onceAtFirst(fence)}`;

/* Guarded by the attempt: a relay whose lease ran out must not undo what another one did since. The state is asked for
   in a way that the index of what is due does not match: it would be read from end to end, 45 ms with 100,000 rows. */
const settle = (fence: string) => `
  update outbox o set state = u.state, due_at = now() + u.delay * interval '1 ms', attempts = o.attempts - u.uncounted, last_error = u.error
  from unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::int[], $6::int[], $7::text[]) as u(event_id, subscriber, attempts, state, delay, uncounted, error)
  where o.event_id = u.event_id and o.subscriber = u.subscriber and o.attempts = u.attempts and o.state not in ('done', 'parked')
    and ${onceAtFirst(fence)}`;

/* What the former owner's relay had claimed when it lost the context: it can settle none of it any more. */
const takeOver = (fence: string) =>
  `update outbox set due_at = now() where state = 'pending' and due_at > now() and ${onceAtFirst(fence)}`;

interface Outcome {
  row: Row;
  state: 'pending' | 'parked' | 'done';
  delay: number;
  uncounted: 0 | 1;
  error: string | null;
}

/** Moves one context's events from its outbox to the subscribers: at least once, in order per aggregate. */
export class Relay {
  readonly #log: Logger;
  #running: Promise<void> | undefined;
  #again = false;
  #stopped = true;
  #timer: NodeJS.Timeout | undefined;
  /** Whether this process had the context when it was last asked; undefined before that. */
  #active: boolean | undefined;
  readonly #parked: { add(n?: number): void };

  constructor(
    private readonly unit: UnitOfWork,
    private readonly deliver: Deliver,
    private readonly options: RelayOptions = relayDefaults,
    /** Asked before every round: only the owner's relay runs. */
    private readonly active: () => boolean = () => true,
  ) {
    this.#log = new Logger(`relay.${unit.context}`);
    this.#parked = metrics.counter('banyan_outbox_parked_total', 'Deliveries given up on and parked', {
      context: unit.context,
    });
  }

  start(): void {
    this.#stopped = false;
    metrics.watchOutbox(this.unit.context, () => this.backlog());
    this.wake();
  }

  /** Finishes the round that is running; what is left is picked up by the next start, or by another instance. */
  async stop(): Promise<void> {
    this.#stopped = true;
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

  /** Deliveries still to make, and how long the oldest has waited, in seconds. */
  async backlog(): Promise<{ pending: number; oldestSeconds: number; parked: number }> {
    const { rows } = await this.unit.db.query<{ pending: number; oldest: number | null; parked: number }>(
      `select count(*) filter (where state = 'pending') as pending, count(*) filter (where state = 'parked') as parked,
         extract(epoch from now() - min(occurred_at))::float8 as oldest
       from outbox where state in ('pending', 'parked')`,
    );
    const { pending, oldest, parked } = rows[0]!;
    return { pending, oldestSeconds: Math.max(0, oldest ?? 0), parked };
  }

  async #drain(): Promise<void> {
    try {
      while (!this.#stopped && (await this.#entitled())) {
        const { rows } = await this.unit.statement<Row>(claim, [this.options.batch, this.options.leaseMs]);
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
    if (now && before === false) await this.unit.statement(takeOver, []);
    return (this.#active = now);
  }

  async #round(rows: Row[]): Promise<void> {
    rows.sort((a, b) => (a.aggregate === b.aggregate ? a.version - b.version : a.aggregate < b.aggregate ? -1 : 1));
    const going = new Set<string>();
    const bySubscriber = new Map<string, Row[]>();
    const outcomes: Outcome[] = [];
    for (const row of rows) {
      const waits = row.previous_state === 'pending' || row.previous_state === 'parked';
      if (waits && !going.has(`${row.previous} ${row.subscriber}`)) {
        // Behind an event of its own aggregate. Not a try: back it goes, for longer when that event is parked.
        const delay = row.previous_state === 'parked' ? 15_000 : this.options.backoffMs;
        outcomes.push({ row, state: 'pending', delay, uncounted: 1, error: null });
      } else {
        going.add(`${row.event_id} ${row.subscriber}`);
        const queue = bySubscriber.get(row.subscriber);
        if (queue) queue.push(row);
        else bySubscriber.set(row.subscriber, [row]);
      }
    }
    await Promise.all(
      [...bySubscriber].map(async ([subscriber, queue]) => {
        outcomes.push(...(await this.#send(subscriber, queue)));
      }),
    );
    await this.unit.statement(settle, [
      outcomes.map(({ row }) => row.event_id),
      outcomes.map(({ row }) => row.subscriber),
      outcomes.map(({ row }) => row.attempts),
      outcomes.map(({ state }) => state),
      outcomes.map(({ delay }) => Math.ceil(delay)),
      outcomes.map(({ uncounted }) => uncounted),
      outcomes.map(({ error }) => error),
    ]);
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
      return queue.map((row) => ({ row, state: 'pending', delay, uncounted: 1, error: text(error) }));
    }
    const verdicts = new Map(receipts.map((receipt) => [receipt.id, receipt]));
    return queue.map((row) => this.#outcome(row, verdicts.get(row.event_id)));
  }

  #outcome(row: Row, receipt: Receipt | undefined): Outcome {
    if (receipt?.verdict === 'applied' || receipt?.verdict === 'duplicate')
      return { row, state: 'done', delay: 0, uncounted: 0, error: null };
    const error = receipt?.verdict === 'failed' ? receipt.error : (receipt?.verdict ?? 'no receipt');
    if (receipt?.verdict === 'failed' && row.attempts >= this.options.attempts) {
      this.#log.error({ msg: `parked for ${row.subscriber}`, eventId: row.event_id, type: row.type, reason: error });
      this.#parked.add();
      return { row, state: 'parked', delay: 0, uncounted: 0, error };
    }
    const uncounted = receipt?.verdict === 'gap' ? 1 : 0;
    return { row, state: 'pending', delay: this.#backoff(row.attempts), uncounted, error };
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

const text = (error: unknown): string => String((error as Error)?.message ?? error).slice(0, 500);
