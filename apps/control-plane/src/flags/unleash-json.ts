import { z } from 'zod';
import { DomainError } from '@banyan/kernel';
import { fail } from '@banyan/platform/http';

/*
 * The bodies of Unleash's admin API (its version 8). Unknown fields are let through, as Unleash does: its own console
 * and scripts send whole objects back.
 */

const Payload = z.object({ type: z.enum(['json', 'csv', 'string', 'number']), value: z.string() });

const weight = z.int().min(0).max(1_000);
const name = z.string().min(1).max(100);

/** A variant of a strategy: Unleash wants all four. */
export const StrategyVariant = z.object({
  name,
  weight,
  weightType: z.enum(['variable', 'fix']),
  stickiness: z.string().max(100),
  payload: Payload.optional(),
});

/** A variant of a flag. */
export const Variant = z.object({
  name,
  weight,
  /** Unleash takes one without it, and then loses the variant or says that none is variable. */
  weightType: z.enum(['variable', 'fix']),
  stickiness: z.string().max(100).default('default'),
  payload: Payload.optional(),
  overrides: z.array(z.object({ contextName: z.string(), values: z.array(z.string()) })).optional(),
});
export type Variant = z.output<typeof Variant>;
export const Variants = z.array(Variant).max(100);

const Constraint = z.object({
  contextName: z.string().min(1).max(100),
  operator: z.enum([
    'NOT_IN',
    'IN',
    'STR_ENDS_WITH',
    'STR_STARTS_WITH',
    'STR_CONTAINS',
    'NUM_EQ',
    'NUM_GT',
    'NUM_GTE',
    'NUM_LT',
    'NUM_LTE',
    'DATE_AFTER',
    'DATE_BEFORE',
    'SEMVER_EQ',
    'SEMVER_GT',
    'SEMVER_LT',
    'SEMVER_GTE',
    'SEMVER_LTE',
    'REGEX',
  ]),
  caseInsensitive: z.boolean().default(false),
  inverted: z.boolean().default(false),
  values: z.array(z.string()).max(250).default([]),
  value: z.string().min(1).optional(),
});

/** Unleash's parameters are texts; numbers are taken for theirs. */
const Parameters = z.record(z.string(), z.union([z.string(), z.number().transform(String)]));

const strategy = {
  title: z.string().max(200).nullish(),
  disabled: z.boolean().nullish(),
  sortOrder: z.number().optional(),
  parameters: Parameters.optional(),
  constraints: z.array(Constraint).max(30).optional(),
  segments: z.array(z.number()).max(0, 'segments are not kept here: use constraints').optional(),
  variants: z.array(StrategyVariant).max(100).optional(),
};

const StrategyName = z.enum(['flexibleRollout', 'default'], {
  error: 'is not a strategy that is known here: flexibleRollout and default are',
});
export const NewStrategy = z.object({ name: StrategyName, ...strategy });
/** The name is deprecated here, and Unleash ignores another one. */
export const StrategyChanges = z.object({ name: StrategyName.optional(), ...strategy });
export type StrategyChanges = Omit<z.output<typeof StrategyChanges>, 'name'>;

/** A strategy as it is kept, and as the admin API answers it. */
export interface StoredStrategy {
  id: string;
  name: string;
  title: string | null;
  disabled: boolean;
  parameters: Record<string, string>;
  constraints: z.output<typeof Constraint>[];
  variants: z.output<typeof StrategyVariant>[];
  segments: number[];
  sortOrder: number;
}

/** What Unleash makes of a strategy: defaults, and weights that fill 1000. */
export function strategyOf(
  flag: string,
  id: string,
  kind: string,
  given: StrategyChanges,
  order: number,
): StoredStrategy {
  const parameters =
    kind === 'flexibleRollout'
      ? { groupId: flag, rollout: '100', stickiness: 'default', ...given.parameters }
      : { ...given.parameters };
  if (kind === 'flexibleRollout' && !/^(100|\d{1,2})(\.\d+)?$/.test(parameters.rollout ?? ''))
    throw invalid('/parameters/rollout', 'must be a percentage, 0 to 100');
  return {
    id,
    name: kind,
    title: given.title ?? null,
    disabled: given.disabled ?? false,
    parameters,
    constraints: given.constraints ?? [],
    variants: weighted(given.variants ?? []),
    segments: [],
    sortOrder: given.sortOrder ?? order,
  };
}

/** Fixed weights stay, variable ones share what is left of 1000, as Unleash has it. */
export function weighted<V extends { name: string; weight: number; weightType: string }>(variants: readonly V[]): V[] {
  if (variants.length === 0) return [];
  const variable = variants.filter(({ weightType }) => weightType === 'variable');
  if (variable.length === 0) throw invalid('/', 'there must be at least one "variable" variant');
  const fixed = variants.filter(({ weightType }) => weightType === 'fix');
  const left = 1_000 - fixed.reduce((sum, each) => sum + each.weight, 0);
  if (left < 0) throw invalid('/', 'the fixed weights are more than 1000');
  if (new Set(variants.map((each) => each.name)).size < variants.length)
    throw invalid('/', 'two variants have the same name');
  const share = Math.floor(left / variable.length);
  return [
    ...variable.map((each, index) => ({ ...each, weight: share + (index < left % variable.length ? 1 : 0) })),
    ...fixed,
  ].sort((a, b) => a.name.localeCompare(b.name));
}

export const invalid = (pointer: string, detail: string): DomainError =>
  fail('INPUT_INVALID', `The body is invalid: ${detail}`, { errors: [{ pointer, detail }] });
