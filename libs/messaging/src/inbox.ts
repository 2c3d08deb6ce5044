import { type AnyEvent, DomainError, reasonOf, system } from '@banyan/kernel';
import type { EventEnvelope, Receipt } from './envelope.js';
import type { CommandContext, EventOf } from './handlers.js';
import type { Cause, UnitOfWork, WritingContext } from './unit-of-work.js';

/** How long an event's row stays in the inbox; a predecessor older than this counts as received, ms. */
export const INBOX_RETENTION = 30 * 24 * 60 * 60 * 1000;

export interface Reaction {
  event: AnyEvent;
  run(event: EventOf<AnyEvent>, ctx: CommandContext): Promise<void>;
}

/* fresh: taken now. duplicate: its effect is there already. gap: the event before it has not come. */
const take = `
  with given as (
    select * from unnest($1::uuid[], $2::uuid[], $3::text[]) with ordinality as g(event_id, previous, type, ord)
  ),
  known as (
    -- By array, so that it can only be the index: joined, an inbox of 30,000 was read from end to end for one event.
    select event_id from inbox where event_id = any($1::uuid[] || $2::uuid[])
  ),
  fresh as (
    insert into inbox (event_id, type, received_at)
    select event_id, type, $4 from given
    where event_id not in (select event_id from known)
      and (previous is null or previous < $5::uuid or previous in (select event_id from known) or previous in (select event_id from given))
    on conflict do nothing returning event_id
  )
  select case when f.event_id is not null then 'fresh' when k.event_id is not null then 'duplicate' else 'gap' end as verdict
  from given g left join fresh f using (event_id) left join known k using (event_id) order by g.ord`;

/** Some miss the one before them. */
class Gap extends Error {
  constructor(readonly missing: ReadonlySet<string>) {
    super('gap');
  }
}

/** Receives events for one context. The unique row in the effect's transaction is what makes an event happen once. */
export class Inbox {
  readonly #reactions: Map<string, Reaction>;

  constructor(
    private readonly unit: UnitOfWork,
    reactions: readonly Reaction[],
  ) {
    this.#reactions = new Map(reactions.map((reaction) => [reaction.event.name, reaction]));
  }

  /**
   * Events of one aggregate come in order. One transaction for all; when something is wrong with one, two for the halves,
   * and so on: it is found in few, and the others still go together.
   */
  async receive(events: EventEnvelope[]): Promise<Receipt[]> {
    if (events.length === 0) return [];
    try {
      return await this.#together(events);
    } catch (error) {
      // Not the event's fault: the database is away, or the context has moved.
      if (DomainError.is(error) && error.kind === 'unavailable') throw error;
      if (error instanceof Gap) return this.#without(error.missing, events);
      if (events.length === 1) return [{ id: events[0]!.id, verdict: 'failed', error: describe(error) }];
    }
    const half = Math.ceil(events.length / 2);
    return [...(await this.receive(events.slice(0, half))), ...(await this.receive(events.slice(half)))];
  }

  /** All but those that miss the one before them, and what comes behind those. */
  async #without(missing: ReadonlySet<string>, events: EventEnvelope[]): Promise<Receipt[]> {
    const waiting = new Set(missing);
    for (const { id, previous } of events) if (previous !== null && waiting.has(previous)) waiting.add(id);
    const rest = events.filter(({ id }) => !waiting.has(id));
    const receipts = rest.length ? await this.receive(rest) : [];
    const taken = new Map(receipts.map((receipt) => [receipt.id, receipt]));
    return events.map(({ id }) => taken.get(id) ?? { id, verdict: 'gap' });
  }

  #together(events: EventEnvelope[]): Promise<Receipt[]> {
    return this.unit.run(this.#cause(events[0]!), async (ctx) => {
      const verdicts = await this.#take(events, ctx);
      if (verdicts.includes('gap'))
        throw new Gap(new Set(events.flatMap(({ id }, index) => (verdicts[index] === 'gap' ? [id] : []))));
      const receipts: Receipt[] = [];
      for (const [index, event] of events.entries()) {
        if (verdicts[index] === 'fresh') await this.#react(event, ctx.fork(this.#cause(event)));
        receipts.push({ id: event.id, verdict: verdicts[index] === 'fresh' ? 'applied' : 'duplicate' });
      }
      return receipts;
    });
  }

  async #take(events: EventEnvelope[], ctx: WritingContext): Promise<string[]> {
    const now = new Date();
    const { rows } = await ctx.tx.query<{ verdict: string }>({
      name: 'banyan_inbox',
      text: take,
      values: [
        events.map((event) => event.id),
        events.map((event) => event.previous),
        events.map((event) => event.type),
        now,
        idFloor(now.getTime() - INBOX_RETENTION),
      ],
    });
    return rows.map((row) => row.verdict);
  }

  async #react(event: EventEnvelope, ctx: WritingContext): Promise<void> {
    const reaction = this.#reactions.get(event.type);
    if (!reaction) throw new Error(`${this.unit.context} does not subscribe to ${event.type}`);
    await reaction.run(
      {
        id: event.id,
        type: event.type,
        aggregateId: event.subject.slice(event.subject.indexOf('/') + 1),
        version: event.aggregateversion,
        at: ctx.now,
        data: reaction.event.data.parse(event.data),
      },
      ctx,
    );
  }

  #cause(event: EventEnvelope): Cause {
    const at = new Date(event.time);
    const actor = system(`event:${event.type}`);
    const envelope = {
      id: event.id,
      context: this.unit.context,
      operation: `on:${event.type}`,
      input: event.data,
      actor,
      at: at.getTime(),
      deadline: Infinity,
      traceparent: event.traceparent,
    };
    return { id: `${event.id}:${this.unit.context}`, at, actor, envelope };
  }
}

/** The smallest UUIDv7 of a moment: ids sort by time, so this cuts by age. */
export function idFloor(ms: number): string {
  const hex = Math.max(0, Math.trunc(ms)).toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`;
}

/* Kept with the event and shown to operators: the error's text only, cut short. */
const describe = (error: unknown): string =>
  (DomainError.is(error) ? `${error.code}: ${error.message}` : reasonOf(error)).slice(0, 500);
