import { hash } from 'node:crypto';
import { z } from 'zod';
import type { Difference } from './compare.js';
import { maskPath, maskPointer, maskRequest, maskValue } from './mask.js';

const Acknowledgement = z.strictObject({ by: z.string(), reason: z.string(), at: z.string() });
export type Acknowledgement = z.output<typeof Acknowledgement>;

/** One place where the candidate differed. Nothing personal in it: values are masked before they are kept. */
const Sighting = z.strictObject({
  at: z.string(),
  /** What was asked, masked. */
  request: z.string().nullable(),
  pointer: z.string(),
  /** The owner's value and the candidate's, as JSON, masked; null where there is none. */
  expected: z.string().nullable(),
  actual: z.string().nullable(),
});
export type Sighting = z.output<typeof Sighting>;

/** One class of difference: the same operation, field and kind. */
export const Divergence = z.strictObject({
  /** The same on every instance. */
  id: z.string(),
  context: z.string(),
  operation: z.string(),
  /** JSON pointer with `*` for every index; empty for the answer as a whole. */
  path: z.string(),
  kind: z.enum(['changed', 'missing', 'extra', 'order', 'type', 'status', 'content-type', 'body', 'error']),
  verdict: z.enum(['difference', 'error', 'lag', 'noise']),
  count: z.int().min(1),
  firstSeen: z.string(),
  lastSeen: z.string(),
  /** The first few. */
  samples: z.array(Sighting),
  acknowledged: Acknowledgement.nullable(),
});
export type Divergence = z.output<typeof Divergence>;

const SAMPLES = 3;
/** Answers that differ everywhere must not make a report that grows without end. */
const MAX_GROUPS = 60;

/** Differences seen, grouped. */
export class Ledger {
  readonly #groups = new Map<string, Divergence>();
  /** Differences that came after the ledger was full. */
  overflow = 0;

  /** Enters the differences of one answer, each group once. Returns the groups' ids, in order. */
  enter(
    about: { context: string; operation: string; request?: string },
    verdict: Divergence['verdict'],
    differences: readonly (Omit<Difference, 'kind'> & { kind: Divergence['kind'] })[],
    at = new Date().toISOString(),
  ): string[] {
    const ids = new Set<string>();
    for (const difference of differences) {
      const { context, operation } = about;
      const path = maskPath(difference.path);
      const id = hash('sha256', [context, operation, path, difference.kind, verdict].join('\n')).slice(0, 12);
      if (ids.has(id)) continue;
      ids.add(id);
      let group = this.#groups.get(id);
      if (!group) {
        if (this.#groups.size >= MAX_GROUPS) {
          this.overflow += 1;
          continue;
        }
        const { kind } = difference;
        group = {
          ...{ id, context, operation, path, kind, verdict, count: 0 },
          ...{ firstSeen: at, lastSeen: at, samples: [], acknowledged: null },
        };
        this.#groups.set(id, group);
      }
      group.count += 1;
      group.lastSeen = at;
      if (group.samples.length < SAMPLES)
        group.samples.push({
          at,
          request: about.request === undefined ? null : maskRequest(about.request, operation),
          pointer: maskPointer(difference.path),
          expected: shown(difference, difference.expected),
          actual: shown(difference, difference.actual),
        });
    }
    return [...ids].sort();
  }

  list(): Divergence[] {
    return [...this.#groups.values()];
  }
}

const MEDIA_TYPE = /^[\w.+-]{1,40}\/[\w.+-]{1,60}(; ?charset="?[\w-]{1,20}"?)?$/;

/** As JSON. Reasons of failure are our own words, and media types are nobody's data; everything else is masked. */
function shown({ kind, path }: { kind: Divergence['kind']; path: string }, value: unknown): string | null {
  const ours = kind === 'error' || (kind === 'content-type' && typeof value === 'string' && MEDIA_TYPE.test(value));
  return ours && value !== undefined ? JSON.stringify(value) : maskValue(value, path);
}

/**
 * Divergences of several instances, or of several stages, as one list: those that count first, then the most frequent.
 * `acknowledged` says, by id, what an operator has accepted.
 */
export function mergeDivergences(
  lists: Iterable<readonly Divergence[]>,
  acknowledged: Readonly<Record<string, Acknowledgement>> = {},
): Divergence[] {
  const merged = new Map<string, Divergence>();
  for (const divergence of [...lists].flat()) {
    const known = merged.get(divergence.id);
    const accepted = Object.hasOwn(acknowledged, divergence.id) ? acknowledged[divergence.id]! : null;
    merged.set(
      divergence.id,
      known
        ? {
            ...known,
            count: known.count + divergence.count,
            firstSeen: known.firstSeen < divergence.firstSeen ? known.firstSeen : divergence.firstSeen,
            lastSeen: known.lastSeen > divergence.lastSeen ? known.lastSeen : divergence.lastSeen,
            samples: [...known.samples, ...divergence.samples].slice(0, SAMPLES),
          }
        : { ...divergence, acknowledged: accepted ?? divergence.acknowledged },
    );
  }
  const weight = { error: 0, difference: 0, lag: 1, noise: 1 };
  return [...merged.values()].sort((a, b) => weight[a.verdict] - weight[b.verdict] || b.count - a.count);
}
