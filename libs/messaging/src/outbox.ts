import type { GivenBack } from './envelope.js';
import type { StreamState } from './jetstream.js';
import type { UnitOfWork } from './unit-of-work.js';

/** One delivery: an event for one subscriber. */
export interface Row {
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
  /** 'direct': it came back from a stream, or fits into none. */
  via: string | null;
}

/** What has become of a delivery that was claimed. */
export interface Outcome {
  row: Row;
  state: 'pending' | 'parked' | 'done';
  /** When it is due again, ms from now. */
  delay: number;
  uncounted: 0 | 1;
  error: string | null;
  /** What it is to remember of its way: the incarnation of the stream that took it, or 'direct'. */
  via: string | null;
  seq: number | null;
}

/* What a crash of Postgres takes back of a claim or its settlement is delivered again, and the inbox has its row: so
   their commits need not wait for the disk (0.5 ms each). An event's effect does. */
const unhurried = `(select set_config('synchronous_commit', 'off', true)) as unhurried`;

/* Joined, the fence was asked again for every row. */
const onceAtFirst = (fence: string) => `(select count(*) from ${fence}, ${unhurried}) = 1`;

const claim = (fence: string) => `select c.* from banyan_claim($1, $2) c where ${onceAtFirst(fence)}`;

/* Guarded by the attempt: a relay whose lease ran out must not undo what another one did since; and by the way, which
   changes when the event comes back before this. The state is asked for in a way that the index of what is due does not
   match: it would be read from end to end, 45 ms with 100,000 rows. */
const settle = (fence: string) => `
  update outbox o set state = u.state, due_at = now() + u.delay * interval '1 ms', attempts = o.attempts - u.uncounted,
    last_error = u.error, via = u.via, seq = u.seq
  from unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::text[], $6::int[], $7::int[], $8::text[], $9::text[], $10::bigint[])
    as u(event_id, subscriber, attempts, claimed_via, state, delay, uncounted, error, via, seq)
  where o.event_id = u.event_id and o.subscriber = u.subscriber and o.attempts = u.attempts
    and o.via is not distinct from u.claimed_via and o.state not in ('done', 'parked') and ${onceAtFirst(fence)}`;

/* What the former owner's relay had claimed when it lost the context: it can settle none of it any more. */
const takeOver = (fence: string) =>
  `update outbox set due_at = now() where state = 'pending' and due_at > now() and ${onceAtFirst(fence)}`;

/* What waited for a stream that takes nothing. Leases are shorter than that, and what is claimed twice is harmless. */
const hurry = (fence: string) => `
  update outbox o set due_at = now() from (
    select event_id, subscriber from outbox
    where state = 'pending' and subscriber = $1 and due_at > now() and ${onceAtFirst(fence)}
    order by event_id limit $2 for update skip locked) w
  where o.event_id = w.event_id and o.subscriber = w.subscriber`;

/* Once: it may be told again, of another copy in the stream, when the relay has it or has delivered it. */
const takeBack = (fence: string) => `
  update outbox o set state = b.state, attempts = b.attempts, last_error = b.error, due_at = now(), via = 'direct', seq = null
  from unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[]) as b(event_id, subscriber, state, attempts, error)
  where o.event_id = b.event_id and o.subscriber = b.subscriber
    and case o.state when 'done' then o.seq is not null when 'pending' then o.via is null else false end
    and ${onceAtFirst(fence)}
  returning o.event_id, o.subscriber`;

/* The subscriber has not got these, and the streams that took them hold them no longer. */
const recover = (fence: string) => `
  update outbox o set state = 'pending', attempts = 0, due_at = now(), via = 'direct', seq = null
  from outbox_stream s
  where o.event_id = any($2::uuid[]) and o.subscriber = $1 and o.state = 'done'
    and s.subscriber = $1 and s.incarnation = o.via and o.seq <= s.taken and ${onceAtFirst(fence)}`;

const seen = (fence: string) => `select banyan_stream_seen($1, $2, $3, $4) as again where ${onceAtFirst(fence)}`;

/* Before anything says that it is in that stream. */
const note = (fence: string) => `
  insert into outbox_stream select $1, $2, 0, now() where ${onceAtFirst(fence)} on conflict do nothing`;

/** Two statements that lock the same rows in different orders wait for each other. */
const inOneOrder = <T>(all: readonly T[], id: (each: T) => string): T[] =>
  [...all].sort((a, b) => (id(a) < id(b) ? -1 : 1));

/** A context's outbox as its relay works on it. Every statement asks the fence: only the owner's succeed. */
export class Outbox {
  constructor(private readonly unit: UnitOfWork) {}

  /** Deliveries that are due, in nobody else's reach for `leaseMs`. */
  async claim(batch: number, leaseMs: number): Promise<Row[]> {
    return (await this.unit.statement<Row>(claim, [batch, leaseMs])).rows;
  }

  async settle(unsorted: readonly Outcome[]): Promise<void> {
    const outcomes = inOneOrder(unsorted, ({ row }) => row.event_id);
    await this.unit.statement(settle, [
      outcomes.map(({ row }) => row.event_id),
      outcomes.map(({ row }) => row.subscriber),
      outcomes.map(({ row }) => row.attempts),
      outcomes.map(({ row }) => row.via),
      outcomes.map(({ state }) => state),
      outcomes.map(({ delay }) => Math.ceil(delay)),
      outcomes.map(({ uncounted }) => uncounted),
      outcomes.map(({ error }) => error),
      outcomes.map(({ via }) => via),
      outcomes.map(({ seq }) => seq),
    ]);
  }

  /** What lies in the leases of the former owner is due. */
  async takeOver(): Promise<void> {
    await this.unit.statement(takeOver, []);
  }

  /** Everything for this subscriber is due, or the oldest `most` of it. */
  async hurry(subscriber: string, most?: number): Promise<void> {
    await this.unit.statement(hurry, [subscriber, most ?? null]);
  }

  /**
   * Deliveries that their subscriber could not take from a stream: parked, or for the relay to deliver itself. Answers which
   * were taken back, as `<event> <subscriber>`: not those that are here, or that nobody here knows.
   */
  async takeBack(unsorted: readonly GivenBack[]): Promise<Set<string>> {
    const back = inOneOrder(unsorted, ({ eventId }) => eventId);
    const { rows } = await this.unit.statement<{ event_id: string; subscriber: string }>(takeBack, [
      back.map(({ eventId }) => eventId),
      back.map(({ subscriber }) => subscriber),
      back.map(({ state }) => state),
      back.map(({ attempts }) => attempts),
      back.map(({ error }) => error.slice(0, 500)),
    ]);
    return new Set(rows.map(({ event_id, subscriber }) => `${event_id} ${subscriber}`));
  }

  /** Of these events, which the subscriber says it has not got, those that are in no stream any more are due. */
  async recover(subscriber: string, events: readonly string[]): Promise<number> {
    return (await this.unit.statement(recover, [subscriber, events])).rowCount ?? 0;
  }

  /**
   * Notes what a subscriber's stream is like; undefined: there is none. What was lost with another one is due, and with
   * `doubtful` what this one has taken lately, too: its broker may have crashed. Answers how many deliveries are.
   */
  async saw(subscriber: string, state: StreamState | undefined, doubtful: boolean): Promise<number> {
    const values = [subscriber, state?.incarnation ?? null, state?.taken ?? 0, doubtful];
    const { rows } = await this.unit.statement<{ again: number }>(seen, values);
    return Number(rows[0]?.again ?? 0);
  }

  /** Says that deliveries are about to be settled with this stream. Answers whether that is new. */
  async note(subscriber: string, incarnation: string): Promise<boolean> {
    return (await this.unit.statement(note, [subscriber, incarnation])).rowCount === 1;
  }

  /** Whose streams may hold deliveries of this context. */
  async streamed(): Promise<string[]> {
    const { rows } = await this.unit.db.query<{ subscriber: string }>('select distinct subscriber from outbox_stream');
    return rows.map(({ subscriber }) => subscriber);
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
}
