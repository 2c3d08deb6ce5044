import { type Stage, stepTowards } from '@banyan/extraction';
import type { HandOverRows } from './hand-over.js';

/** done: the stage may be entered. Else why it is not, as it is told to operators. */
export type Progress = 'done' | { doing: string; blocked?: string };

/** What a step can do with a context. Each is level-triggered: called again and again until it says that it is done. */
export interface Moves {
  /** The service's database, the copy of the data, bridge and service. */
  makeCopy(rows: HandOverRows, signal: AbortSignal): Promise<Progress>;
  /** A share of the reads for the service, where none is set. */
  giveShare(rows: HandOverRows, signal: AbortSignal): Promise<Progress>;
  /** The service becomes the owner. */
  takeOver(rows: HandOverRows, signal: AbortSignal): Promise<Progress>;
  /** The monolith becomes the owner again. */
  takeBack(rows: HandOverRows, signal: AbortSignal): Promise<Progress>;
}

interface Transition {
  low: Stage;
  high: Stage;
  /** Held back until the gates of `high` hold, or an operator forces it. */
  gated: boolean;
  up?: keyof Moves;
  down?: keyof Moves;
}

/**
 * Every step there is. What is not named changes the routing only; what a stage leaves behind is taken away afterwards,
 * when nobody uses it any more.
 */
export const transitions: readonly Transition[] = [
  { low: 'monolith', high: 'replicate', gated: false, up: 'makeCopy' },
  { low: 'replicate', high: 'shadow', gated: true },
  { low: 'shadow', high: 'canary', gated: true, up: 'giveShare' },
  { low: 'canary', high: 'live', gated: true, up: 'takeOver', down: 'takeBack' },
];

export interface Step {
  to: Stage;
  gated: boolean;
  move: keyof Moves | undefined;
}

/** The step from `stage` towards `target`; undefined when it is there. */
export function stepFrom(stage: Stage, target: Stage): Step | undefined {
  if (stage === target) return undefined;
  const to = stepTowards(stage, target);
  const up = transitions.find(({ low, high }) => low === stage && high === to);
  if (up) return { to, gated: up.gated, move: up.up };
  const down = transitions.find(({ low, high }) => high === stage && low === to);
  if (!down) throw new Error(`There is no step from ${stage} to ${to}`);
  return { to, gated: false, move: down.down };
}
