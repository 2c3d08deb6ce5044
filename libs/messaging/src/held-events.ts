import { LRUCache } from 'lru-cache';
import type { EventEnvelope } from './envelope.js';

export interface HoldingOptions {
  /** Tried together, at most. */
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

/** An event that is here: nobody else has it meanwhile. */
export interface Held<Message> {
  readonly event: EventEnvelope;
  /** More than one when it was published twice. */
  readonly messages: Message[];
  /** When it is to be tried, ms since the epoch; Infinity: something is being done about it. */
  due: number;
  /** Since when it misses the one before it. */
  gapSince: number | undefined;
}

/** With many here, one that has waited this long for the one before it need not wait here, ms. */
const LONG = 2_000;
/** When an event is tried again whose turn it was not, at first, ms. */
const SOON = 10;
/** At last it is looked at again after this, ms. */
const LOOK = 1_000;

/** Events of one subscriber that have come and are not done: which of them to try next, and which has waited enough. */
export class HeldEvents<Message> {
  /** By the event's id, in the order they came. */
  readonly #held = new Map<string, Held<Message>>();
  /** Who comes behind an event. */
  readonly #behind = new Map<string, Held<Message>>();
  /** Tries of events that have failed here. */
  readonly #failures = new LRUCache<string, number>({ max: 10_000 });
  /** Events that went back: who comes behind one need not wait for it. */
  readonly #returned = new LRUCache<string, true>({ max: 10_000 });

  constructor(private readonly options: HoldingOptions) {}

  get size(): number {
    return this.#held.size;
  }

  /** Too many wait here. */
  get crowded(): boolean {
    return this.#held.size > this.options.waiting;
  }

  messages(): Message[] {
    return [...this.#held.values()].flatMap(({ messages }) => messages);
  }

  came(event: EventEnvelope, message: Message): void {
    const held = this.#held.get(event.id);
    if (held) return void held.messages.push(message);
    const fresh = { event, messages: [message], due: 0, gapSince: undefined };
    this.#held.set(event.id, fresh);
    if (event.previous !== null) this.#behind.set(event.previous, fresh);
  }

  /** What can be tried now, a batch at most. What comes behind one that is held and cannot is left, too. */
  due(now: number): Held<Message>[] {
    const batch: Held<Message>[] = [];
    const chosen = new Set<string>();
    for (const held of this.#held.values()) {
      if (held.due > now) continue;
      if (batch.length >= this.options.batch) break;
      const { id, previous } = held.event;
      const before = previous !== null && !chosen.has(previous) ? this.#held.get(previous) : undefined;
      if (before && !this.#patienceIsOver(held, now)) {
        held.gapSince ??= now;
        held.due = Math.max(Math.min(before.due, now + LOOK), now + SOON);
      } else {
        batch.push(held);
        chosen.add(id);
      }
    }
    // One that came back to the stream may have come behind those that wait for it.
    return batch.sort(inOrder);
  }

  /** When there may be something to try, ms from `now`. */
  waits(now: number): number {
    return Math.max(5, Math.min(LOOK, ...[...this.#held.values()].map(({ due }) => due - now)));
  }

  /** Nothing is known of any: together they are tried again. Each at its own time, they would go one by one. */
  again(batch: readonly Held<Message>[], delayMs: number, now: number): void {
    for (const held of batch) held.due = now + delayMs;
  }

  /** Counts a try. Answers how many there were, and whether that is enough; else it is tried again after `delayMs`. */
  failed(held: Held<Message>, now: number): { failures: number; enough: boolean; delayMs: number } {
    const { attempts, backoffMs } = this.options;
    const failures = (this.#failures.get(held.event.id) ?? 0) + 1;
    this.#failures.set(held.event.id, failures);
    const delayMs = Math.random() * Math.min(60_000, backoffMs * 2 ** failures);
    held.due = now + delayMs;
    return { failures, enough: failures >= attempts, delayMs };
  }

  /**
   * Those whose predecessor has not come: another process has it, or it failed, or it is lost. Answers which have waited
   * long enough; the others are tried again at one time, because mostly another process has those before them.
   */
  missed(batch: readonly Held<Message>[], now: number): Held<Message>[] {
    for (const held of batch) held.gapSince ??= now;
    const enough = batch.filter((held) => this.#patienceIsOver(held, now));
    const others = batch.filter((held) => !enough.includes(held));
    const waited = Math.max(0, ...others.map(({ gapSince }) => now - gapSince!));
    this.again(others, Math.min(300, Math.max(SOON, waited / 4)) * (0.5 + Math.random()), now);
    return enough;
  }

  /** It has happened: the one behind it can be tried. */
  done(held: Held<Message>): void {
    const next = this.#behind.get(held.event.id);
    this.letGo(held);
    this.#failures.delete(held.event.id);
    this.#behind.delete(held.event.id);
    if (next) next.due = 0;
  }

  /** It is in its outbox again. */
  returned(held: Held<Message>): void {
    this.#returned.set(held.event.id, true);
    this.done(held);
  }

  /** Somebody may get it again. */
  letGo({ event: { id, previous } }: Held<Message>): void {
    this.#held.delete(id);
    if (previous !== null) this.#behind.delete(previous);
  }

  /** All of them. */
  clear(): void {
    this.#held.clear();
    this.#behind.clear();
  }

  #patienceIsOver({ event: { previous }, gapSince = Infinity }: Held<Message>, now: number): boolean {
    const waited = now - gapSince;
    return (
      (previous !== null && this.#returned.has(previous)) ||
      waited >= this.options.patienceMs ||
      (waited >= LONG && this.crowded)
    );
  }
}

const inOrder = ({ event: a }: Held<unknown>, { event: b }: Held<unknown>): number =>
  a.subject === b.subject ? a.aggregateversion - b.aggregateversion : a.subject < b.subject ? -1 : 1;
