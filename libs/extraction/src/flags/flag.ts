import { z } from 'zod';

const Constraint = z.looseObject({
  contextName: z.string(),
  operator: z.string(),
  inverted: z.boolean().default(false),
  values: z.array(z.string()).default([]),
});

const Variant = z.looseObject({ name: z.string().min(1), weight: z.number().min(0).max(1_000) });

const Strategy = z
  .looseObject({
    name: z.string().min(1),
    parameters: z.record(z.string(), z.unknown()).default({}),
    constraints: z.array(Constraint).default([]),
    segments: z.array(z.number()).optional(),
    variants: z.array(Variant).nullish(),
  })
  .check(({ value, issues }) => {
    if (value.name !== 'flexibleRollout' || rolloutOf(value) !== undefined) return;
    issues.push({
      code: 'custom',
      path: ['parameters', 'rollout'],
      message: 'is not a percentage',
      input: value.parameters['rollout'],
    });
  });

/**
 * A flag as Unleash's client API tells it, as far as it is read here. The SDK itself takes anything, and would
 * evaluate half a flag as off.
 */
export const Flag = z.looseObject({
  name: z.string().min(1),
  enabled: z.boolean(),
  strategies: z.array(Strategy),
  variants: z.array(Variant).nullish(),
});
export type Flag = z.output<typeof Flag>;
export type FlagStrategy = Flag['strategies'][number];

/** The share of callers, 0 to 100, that a gradual rollout names; undefined when that is no percentage. */
export function rolloutOf(strategy: { parameters: Record<string, unknown> }): number | undefined {
  const rollout = strategy.parameters['rollout'];
  if (typeof rollout !== 'number' && !(typeof rollout === 'string' && rollout.trim() !== '')) return undefined;
  const percent = Number(rollout);
  return percent >= 0 && percent <= 100 ? percent : undefined;
}
