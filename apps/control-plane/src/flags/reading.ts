import { Stage } from '@banyan/extraction';
import { type Flag, type FlagStrategy, rolloutOf, targetFlag } from '@banyan/extraction/flags';

/** What two flags of a context say: each part is known, or it is said why not. */
export interface Reading {
  stage?: Stage;
  percent?: number;
  problem?: string;
}

const asked = ['replicate', 'shadow', 'canary', 'live'] as const;

/** The share that a canary flag lets through, 0 to 100. Strategies for chosen callers count as none. */
export function percentOf(flag: Flag): number {
  if (!flag.enabled) return 0;
  if (flag.strategies.length === 0) return 100;
  return Math.max(0, ...flag.strategies.filter(unconditional).map((strategy) => shareOf(strategy) ?? 0));
}

/**
 * The stage that a target flag asks for: off is the monolith, on is its one variant. Only a flag that is plainly off
 * takes a context back; anything unclear is a problem, and changes nothing.
 */
export function stageOf(flag: Flag): { stage: Stage } | { problem: string } {
  if (!flag.enabled) return { stage: 'monolith' };
  const forAll = flag.strategies.filter((strategy) => unconditional(strategy) && shareOf(strategy) === 100);
  if (flag.strategies.length > 0 && forAll.length === 0)
    return {
      problem: `the flag ${flag.name} is on for some callers only: a context has one target, so roll it out to all`,
    };
  const ofStrategies = forAll.flatMap((strategy) => strategy.variants ?? []);
  const variants = ofStrategies.length > 0 ? ofStrategies : (flag.variants ?? []);
  const names = [...new Set(variants.filter(({ weight }) => weight > 0).map(({ name }) => name))];
  const choice = `one variant of ${asked.join(', ')}, or switch it off`;
  if (names.length === 0) return { problem: `the flag ${flag.name} is on without a variant: give it ${choice}` };
  if (names.length > 1)
    return { problem: `the flag ${flag.name} names ${names.join(' and ')} at once: give it ${choice}` };
  const stage = asked.find((each) => each === names[0]);
  if (!stage)
    return { problem: `the flag ${flag.name} names "${names[0]?.slice(0, 40)}", which is no stage: give it ${choice}` };
  return { stage };
}

/** The two flags of a context together. */
export function readingOf(context: string, target: Flag | undefined, canary: Flag | undefined): Reading {
  const stage = target ? stageOf(target) : { problem: `there is no flag ${targetFlag(context)}: create it` };
  return { ...stage, ...(canary && { percent: percentOf(canary) }) };
}

/** The strategy that asks everybody for `stage`. Unleash 8 takes variants of strategies only, and no longer of flags. */
export const strategyFor = (flag: string, stage: Stage) => ({
  name: 'flexibleRollout',
  parameters: { rollout: '100', stickiness: 'default', groupId: flag },
  constraints: [],
  variants: [{ name: stage, weight: 1_000, weightType: 'variable' as const, stickiness: 'default' }],
});

const unconditional = ({ constraints, segments }: FlagStrategy): boolean =>
  constraints.length === 0 && (segments ?? []).length === 0;

/** Undefined for strategies that choose callers by something else than a share. */
function shareOf(strategy: FlagStrategy): number | undefined {
  if (strategy.name === 'default') return 100;
  return strategy.name === 'flexibleRollout' ? rolloutOf(strategy) : undefined;
}
