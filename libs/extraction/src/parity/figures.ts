import type { Side } from '@banyan/kernel';
import { type Divergence, Ledger } from './divergence.js';
import { type ContextReport, type Counts, type Report, noCounts } from './report.js';
import { type SideTraffic, countAnswer, noTraffic } from './traffic.js';
import type { Difference } from './compare.js';

export type Verdict = 'match' | 'noise' | 'lag' | 'difference' | 'error';

/** How one comparison ended. */
export interface Outcome {
  verdict: Verdict | 'dropped';
  differences: readonly (Omit<Difference, 'kind'> & { kind: Divergence['kind'] })[];
  /** Whether one side was asked twice (A/A), and whether it differed from itself. */
  twice?: boolean;
  unlike?: boolean;
}

interface ContextFigures {
  since: string;
  operations: Map<string, Counts>;
  traffic: Record<Side, SideTraffic>;
  ledger: Ledger;
  together: Map<string, number>;
}

/** Paths come from clients, and so may names of operations. */
const MAX_OPERATIONS = 200;
const OTHER = '(other)';

/** What one process has counted: per context, since the context entered its stage. */
export class Figures {
  readonly #contexts = new Map<string, ContextFigures>();
  #changed = false;

  /** Counts `context` from `since` on (`ContextRouting.since`); what was counted for another stage is forgotten. */
  begin(context: string, since: string): void {
    if (this.#contexts.get(context)?.since === since) return;
    this.#changed = true;
    this.#contexts.set(context, {
      since,
      operations: new Map(),
      traffic: { monolith: noTraffic(), service: noTraffic() },
      ledger: new Ledger(),
      together: new Map(),
    });
  }

  /** No longer counts `context`. */
  end(context: string): void {
    this.#changed = this.#contexts.delete(context) || this.#changed;
  }

  /** The stage that is counted now; undefined when none is. */
  since(context: string): string | undefined {
    return this.#contexts.get(context)?.since;
  }

  /** One request or call that `side` served; `failed` by its own fault (5xx, reset, timeout). */
  served(context: string, side: Side, ms: number, failed: boolean): void {
    const figures = this.#contexts.get(context);
    if (!figures) return;
    countAnswer(figures.traffic[side], ms, failed);
    this.#changed = true;
  }

  /** One comparison that began when the stage of `since` was counted; of an earlier stage it is forgotten. */
  compared(about: { context: string; operation: string; since: string; request?: string }, outcome: Outcome): void {
    const figures = this.#contexts.get(about.context);
    if (figures?.since !== about.since) return;
    const { verdict, differences } = outcome;
    const operation = this.#operation(figures, about.operation);
    const counts = figures.operations.get(operation)!;
    counts[verdict] += 1;
    if (outcome.twice) counts.twice += 1;
    if (outcome.unlike) counts.unlike += 1;
    if (differences.length > 0) {
      const kept = verdict === 'match' || verdict === 'dropped' ? 'noise' : verdict;
      const ids = figures.ledger.enter({ ...about, operation }, kept, differences);
      const counted = verdict === 'difference' || verdict === 'error';
      const key = ids.join('+');
      // More sets than this: the rest can never be excused, which errs on the safe side.
      if (counted && (figures.together.has(key) || figures.together.size < MAX_OPERATIONS))
        figures.together.set(key, (figures.together.get(key) ?? 0) + 1);
    }
    this.#changed = true;
  }

  #operation({ operations }: ContextFigures, name: string): string {
    const known = operations.has(name) || operations.size < MAX_OPERATIONS ? name : OTHER;
    if (!operations.has(known)) operations.set(known, noCounts());
    return known;
  }

  /** Everything counted so far, if it has changed since the last report. */
  report(instance: string, role: Report['role']): Report | undefined {
    if (!this.#changed) return undefined;
    this.#changed = false;
    return { instance, role, contexts: this.contexts() };
  }

  /** The report was not delivered: the next one is due, changed or not. */
  undelivered(): void {
    this.#changed = true;
  }

  contexts(): Record<string, ContextReport> {
    return Object.fromEntries(
      [...this.#contexts].map(([context, { since, operations, traffic, ledger, together }]) => [
        context,
        structuredClone({
          since,
          operations: Object.fromEntries(operations),
          traffic,
          divergences: ledger.list(),
          together: Object.fromEntries(together),
        }),
      ]),
    );
  }
}
