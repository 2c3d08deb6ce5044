import { setTimeout as sleep } from 'node:timers/promises';
import type { Side } from '@banyan/kernel';
import { neverConnected } from '@banyan/platform/resilience';
import {
  BrokenCircuitError,
  type BulkheadPolicy,
  type CircuitBreakerPolicy,
  CircuitState,
  ConsecutiveBreaker,
  TaskCancelledError,
  type TimeoutPolicy,
  TimeoutStrategy,
  bulkhead,
  circuitBreaker,
  handleWhen,
  timeout,
} from 'cockatiel';
import type { Answer } from './answer.js';
import { type Difference, compare } from './compare.js';
import type { Figures, Outcome } from './figures.js';
import { Noise } from './noise.js';
import type { Rules } from './rules.js';

export interface AskOptions {
  /** Aborted when nobody waits any more. */
  signal: AbortSignal;
  /** Reject with TooLarge when the body is longer. */
  maxBytes: number;
}

/** A read that one side has served, or that nobody has been asked yet. */
export interface Sample {
  context: string;
  /** `GET /v1/stock/{sku}` or `inventory.stockOf`. */
  operation: string;
  /** `ContextRouting.since` when the read was placed: figures of another stage are not touched. */
  since: string;
  /** The owner's answer is right; the other side is the candidate. */
  owner: Side;
  /** Absent: GET. Nothing but GET and HEAD is ever asked again (trap 15). */
  method?: string;
  /** What was asked (path, or input as JSON), for the ledger; it is masked there. */
  request?: string;
  rules?: Rules;
  /** What the caller got, and from whom. `'too large'`: it was longer than the size cap, and so was not kept. */
  served?: { side: Side; answer: Answer | 'too large' };
  /**
   * Asks one side the same again. It may reject, and may hang: it is given up after the timeout. It must neither be
   * sent with `Prefer: wait`, nor count as a caller's request.
   */
  ask(side: Side, options: AskOptions): Promise<Answer>;
}

export interface MirrorOptions {
  /** Which share of the reads is compared, 0 to 1. */
  share: number;
  /** How many comparisons at once, and how many may wait. What comes on top is dropped, and counted. */
  concurrency: number;
  queue: number;
  /** How long one answer is waited for, ms. */
  timeoutMs: number;
  /** Longer answers of the owner are not compared; of the candidate twice as much is read. */
  maxBytes: number;
  /** After how long a difference is asked again, ms: once per entry. */
  againAfterMs: readonly number[];
  /** Every how many comparisons of an operation the owner is asked twice (A/A). */
  twiceEvery: number;
}

export const mirrorDefaults: MirrorOptions = {
  share: 1,
  concurrency: 16,
  queue: 32,
  timeoutMs: 2_000,
  maxBytes: 256 * 1024,
  againAfterMs: [500, 1_000, 2_000],
  twiceEvery: 50,
};

/** The answer is longer than `maxBytes`. */
export class TooLarge extends Error {
  override readonly name = 'TooLarge';
}

/** The pauses before the rounds of one try, ms: together about the lag of a bridge that keeps up. */
const ROUNDS = [0, 15, 35];

/**
 * A candidate that cannot be reached is tried this often, ms. What would be asked in between fails as the last try did: a
 * dead candidate is 100 % errors, as it is, but a refused connection costs far more CPU than an answer.
 */
const RETRY = 250;
const UNREACHED = 3;

type Asked = { ok: true; answer: Answer } | { ok: false; why: string; status?: number; tooLarge: boolean };

/**
 * Compares what the sides answer, off the caller's path: `offer` only hands a sample over. A comparison keeps its place
 * in the bulkhead until its verdict, re-checks included: what does not fit is dropped before it is compared, so that no
 * verdict is more likely to be dropped than another.
 */
export class Mirror {
  readonly #options: MirrorOptions;
  readonly #room: BulkheadPolicy;
  readonly #patience: TimeoutPolicy;
  readonly #noise = new Noise();
  readonly #closed = new AbortController();
  readonly #compared = new Map<string, number>();
  /** By context: can its candidate be reached? */
  readonly #reach = new Map<string, CircuitBreakerPolicy>();
  readonly #running = new Set<Promise<unknown>>();

  constructor(
    private readonly figures: Figures,
    options: Partial<MirrorOptions> = {},
    private readonly random: () => number = Math.random,
  ) {
    this.#options = { ...mirrorDefaults, ...options };
    this.#room = bulkhead(this.#options.concurrency, this.#options.queue);
    this.#patience = timeout(this.#options.timeoutMs, TimeoutStrategy.Aggressive);
  }

  /** How long an answer may be to be worth keeping for a comparison, bytes. */
  get maxBytes(): number {
    return this.#options.maxBytes;
  }

  /** Is the next read to be compared? Ask before its answer is kept: most of the cost of a sample is its body. */
  wants(method: string | undefined): boolean {
    return (
      !this.#closed.signal.aborted &&
      (method === undefined || method === 'GET' || method === 'HEAD') &&
      this.#room.executionSlots + this.#room.queueSlots > 0 &&
      (this.#options.share >= 1 || this.random() < this.#options.share)
    );
  }

  /** Takes a sample over. Returns at once and never throws; `wants` has been asked. */
  offer(sample: Sample): void {
    // The caller's answer goes out first.
    setImmediate(() => void this.take(sample));
  }

  /** As `offer`, and tells how it ended; undefined when the mirror was closed meanwhile. Never rejects. */
  async take(sample: Sample): Promise<Outcome | undefined> {
    const method = sample.method ?? 'GET';
    if (this.#closed.signal.aborted || (method !== 'GET' && method !== 'HEAD')) return undefined;
    const running = this.#room.execute(() => this.#examine(sample)).catch(() => dropped);
    this.#running.add(running);
    const outcome = await running;
    this.#running.delete(running);
    if (this.#closed.signal.aborted) return undefined;
    this.figures.compared(sample, outcome);
    return outcome;
  }

  /** Drops what is under way and takes nothing more. */
  async close(): Promise<void> {
    this.#closed.abort();
    await Promise.all(this.#running);
  }

  async #examine(sample: Sample): Promise<Outcome> {
    if (sample.served?.answer === 'too large') return dropped;
    const twice = this.#isTurnForTwice(sample.operation);
    const first = await this.#both(sample, true);
    if (!first.owner.ok) return dropped;
    const itself = twice ? await this.#twice(sample) : undefined;
    const facts = { twice: itself !== undefined, unlike: itself !== undefined && itself.length > 0 };
    if (!first.candidate.ok) return { verdict: 'error', differences: [failureOf(first.candidate)], ...facts };
    const differences = compare(first.owner.answer, first.candidate.answer, sample.rules);
    if (differences.length === 0) return { verdict: 'match', differences, ...facts };
    if (!itself && this.#noise.isNew(sample.operation)) await this.#twice(sample);
    if (this.#noise.without(sample.operation, differences).length === 0) return { ...noise(differences), ...facts };
    return { ...(await this.#again(sample, differences)), ...facts };
  }

  /** Asks both sides again, later and later, until their answers are equal. */
  async #again(sample: Sample, first: Difference[]): Promise<Outcome> {
    let last = this.#noise.without(sample.operation, first);
    let failed: Asked | undefined;
    for (const ms of this.#options.againAfterMs) {
      await sleep(ms, undefined, { signal: this.#closed.signal, ref: false });
      const outcome = await this.#try(sample);
      if (outcome === 'equal') return { verdict: 'lag', differences: first };
      if (Array.isArray(outcome)) {
        last = outcome;
        failed = undefined;
      } else failed = outcome;
    }
    if (failed) return { verdict: 'error', differences: [failureOf(failed)] };
    const itself = (await this.#twice(sample)) ?? [];
    const left = this.#noise.without(sample.operation, last, itself);
    return left.length === 0 ? noise(last) : { verdict: 'difference', differences: left };
  }

  /**
   * A few rounds. Equal also means: the candidate shows in one round what the owner showed in another. A row that is
   * written all the time is hardly ever equal at one instant when the candidate is 20 ms behind, but both go through the
   * same states.
   */
  async #try(sample: Sample): Promise<'equal' | Difference[] | Asked> {
    const owners: Answer[] = [];
    const candidates: Answer[] = [];
    let differences: Difference[] = [];
    let failed: Asked | undefined;
    for (const pause of ROUNDS) {
      if (pause > 0) await sleep(pause, undefined, { signal: this.#closed.signal, ref: false });
      const { owner, candidate } = await this.#both(sample, false);
      if (!candidate.ok) failed = candidate;
      if (!owner.ok || !candidate.ok) continue;
      owners.push(owner.answer);
      candidates.push(candidate.answer);
      differences = this.#unlike(sample, owner.answer, candidate.answer);
      const equal = owners.some((a) => candidates.some((b) => this.#unlike(sample, a, b).length === 0));
      if (equal) return 'equal';
    }
    if (owners.length > 0) return differences;
    // The owner failed: nothing is known, and what was seen before still stands.
    return failed ?? { ok: false, why: 'the owner failed', tooLarge: false };
  }

  #unlike(sample: Sample, owner: Answer, candidate: Answer): Difference[] {
    return this.#noise.without(sample.operation, compare(owner, candidate, sample.rules));
  }

  /** A/A. Undefined when the owner failed. */
  async #twice(sample: Sample): Promise<Difference[] | undefined> {
    const [a, b] = await Promise.all([this.#ask(sample, sample.owner), this.#ask(sample, sample.owner)]);
    if (!a.ok || !b.ok) return undefined;
    const differences = compare(a.answer, b.answer, sample.rules);
    this.#noise.learn(sample.operation, differences);
    return differences;
  }

  #isTurnForTwice(operation: string): boolean {
    const n = (this.#compared.get(operation) ?? 0) + 1;
    // Names of operations are bounded by whoever makes them up; this only has to stay small whatever they do.
    if (n === 1 && this.#compared.size >= 1_000) this.#compared.clear();
    this.#compared.set(operation, n);
    return n % this.#options.twiceEvery === 0;
  }

  async #both(sample: Sample, useServed: boolean): Promise<{ owner: Asked; candidate: Asked }> {
    const { owner, served } = sample;
    const of = async (side: Side): Promise<Asked> =>
      useServed && served?.side === side && served.answer !== 'too large'
        ? judged(served.answer)
        : this.#ask(sample, side);
    const [a, b] = await Promise.all([of(owner), of(owner === 'monolith' ? 'service' : 'monolith')]);
    return { owner: a, candidate: b };
  }

  async #ask(sample: Sample, side: Side): Promise<Asked> {
    const maxBytes = this.#options.maxBytes * (side === sample.owner ? 1 : 2);
    const ask = () =>
      this.#patience.execute(({ signal }) => sample.ask(side, { signal, maxBytes }), this.#closed.signal);
    try {
      const answer = await (side === sample.owner ? ask() : this.#candidate(sample.context, ask));
      if (answer.body.length > maxBytes) throw new TooLarge();
      return judged(answer);
    } catch (error) {
      return { ok: false, why: whyOf(error), tooLarge: error instanceof TooLarge };
    }
  }

  async #candidate(context: string, ask: () => Promise<Answer>): Promise<Answer> {
    let reach = this.#reach.get(context);
    if (!reach)
      this.#reach.set(
        context,
        (reach = circuitBreaker(handleWhen(neverConnected), {
          halfOpenAfter: RETRY,
          breaker: new ConsecutiveBreaker(UNREACHED),
        })),
      );
    // While one tries it, the others would wait for how that ends.
    if (reach.state === CircuitState.HalfOpen) throw reasonOf(reach);
    try {
      return await reach.execute(ask);
    } catch (error) {
      throw error instanceof BrokenCircuitError ? reasonOf(reach) : error;
    }
  }
}

/** Why the candidate could not be reached the last time. */
const reasonOf = ({ lastFailure }: CircuitBreakerPolicy): unknown =>
  lastFailure && 'error' in lastFailure ? lastFailure.error : undefined;

const dropped: Outcome = { verdict: 'dropped', differences: [] };

/** With noise in a field the rest has been compared; where the answer as a whole is noise, nothing has. */
const noise = (differences: readonly Difference[]): Outcome => ({
  verdict: differences.some(({ path }) => path === '') ? 'dropped' : 'noise',
  differences,
});

/** An answer that says "I could not" is no answer, from whichever side. */
const judged = (answer: Answer): Asked =>
  answer.status >= 500 || answer.status === 429
    ? { ok: false, why: `status ${answer.status}`, status: answer.status, tooLarge: false }
    : { ok: true, answer };

function whyOf(error: unknown): string {
  if (error instanceof TooLarge) return 'answer too large';
  const { name, code } = (error ?? {}) as { name?: unknown; code?: unknown };
  if (error instanceof TaskCancelledError || name === 'AbortError') return 'timeout';
  return typeof code === 'string' && /^[A-Z0-9_]{1,40}$/.test(code) ? code : 'no answer';
}

const failureOf = (asked: Asked): Outcome['differences'][number] => ({
  kind: 'error',
  path: '',
  actual: asked.ok ? undefined : asked.why,
});
