import { z } from 'zod';

/** How far a context's extraction is, in order. One step at a time, in both directions. */
export const stages = ['monolith', 'replicate', 'shadow', 'canary', 'live'] as const;
export const Stage = z.enum(stages);
export type Stage = z.output<typeof Stage>;

export const Side = z.enum(['monolith', 'service']);

/** Is `stage` at or past `other`? */
export const reached = (stage: Stage, other: Stage): boolean => stages.indexOf(stage) >= stages.indexOf(other);

/** The stage one step from `from` towards `to`; `to` itself when it is there. */
export function stepTowards(from: Stage, to: Stage): Stage {
  const step = Math.sign(stages.indexOf(to) - stages.indexOf(from));
  return stages[stages.indexOf(from) + step]!;
}
