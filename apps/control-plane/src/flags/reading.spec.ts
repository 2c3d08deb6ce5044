import { Flag } from '@banyan/extraction/flags';
import { describe, expect, it } from 'vitest';
import { percentOf, readingOf, stageOf, strategyFor } from './reading.js';

const name = 'extraction.inventory';
const variant = (variant: string, weight = 1_000) => ({ name: variant, weight });
const rollout = (percent: string, more: object = {}) => ({
  name: 'flexibleRollout',
  parameters: { rollout: percent, stickiness: 'default', groupId: name },
  ...more,
});
const flag = (more: object) => Flag.parse({ name, enabled: true, strategies: [], ...more });
const someone = { constraints: [{ contextName: 'userId', operator: 'IN', values: ['7'] }] };

describe('a target flag', () => {
  it.each(['replicate', 'shadow', 'canary', 'live'] as const)('on with the variant %s asks for it', (stage) => {
    expect(stageOf(flag({ strategies: [strategyFor(name, stage)] }))).toEqual({ stage });
    expect(stageOf(flag({ variants: [variant(stage)] }))).toEqual({ stage });
    expect(stageOf(flag({ strategies: [{ name: 'default', variants: [variant(stage)] }] }))).toEqual({ stage });
  });

  it('off asks for the monolith, whatever its variants', () => {
    expect(stageOf(flag({ enabled: false, strategies: [strategyFor(name, 'live')] }))).toEqual({ stage: 'monolith' });
    expect(stageOf(flag({ enabled: false, variants: [variant('nonsense')] }))).toEqual({ stage: 'monolith' });
  });

  it("a strategy's variants go before the flag's own, and a variant without weight is none", () => {
    const both = flag({ strategies: [strategyFor(name, 'live')], variants: [variant('shadow')] });
    expect(stageOf(both)).toEqual({ stage: 'live' });
    expect(stageOf(flag({ variants: [variant('shadow', 0), variant('live')] }))).toEqual({ stage: 'live' });
  });

  it.each([
    ['no variant', {}, /is on without a variant: give it one variant of replicate, shadow, canary, live/],
    ['a variant of no weight', { variants: [variant('live', 0)] }, /is on without a variant/],
    ['a variant that is no stage', { variants: [variant('retired')] }, /names "retired", which is no stage/],
    ['the monolith as variant', { variants: [variant('monolith')] }, /names "monolith", which is no stage/],
    ['two stages', { variants: [variant('live', 500), variant('shadow', 500)] }, /names live and shadow at once/],
    ['half of the callers', { strategies: [rollout('50', { variants: [variant('live')] })] }, /for some callers only/],
    [
      'one caller',
      { strategies: [rollout('100', { ...someone, variants: [variant('live')] })] },
      /for some callers only/,
    ],
    [
      'a segment',
      { strategies: [rollout('100', { segments: [1], variants: [variant('live')] })] },
      /some callers only/,
    ],
    ['other strategies', { strategies: [{ name: 'userWithId', variants: [variant('live')] }] }, /some callers only/],
  ])('on with %s is a problem that says what to do, and no stage', (_, more, words) => {
    const reading = readingOf('inventory', flag(more), undefined);
    expect(reading.problem).toMatch(words);
    expect(reading.stage).toBeUndefined();
  });

  it('that is missing is a problem, too', () => {
    expect(readingOf('inventory', undefined, undefined)).toEqual({
      problem: 'there is no flag extraction.inventory: create it',
    });
  });
});

describe('a canary flag', () => {
  it.each([
    [0, { enabled: false, strategies: [rollout('50')] }],
    [100, {}],
    [100, { strategies: [{ name: 'default' }] }],
    [25, { strategies: [rollout('25')] }],
    [12.5, { strategies: [rollout('12.5')] }],
    [60, { strategies: [rollout('20'), rollout('60')] }],
    [0, { strategies: [rollout('100', someone)] }],
    [30, { strategies: [rollout('100', someone), rollout('30')] }],
    [0, { strategies: [{ name: 'userWithId', parameters: { userIds: '1' } }] }],
  ])('lets %s %% through', (percent, more) => {
    expect(percentOf(flag(more))).toBe(percent);
  });
});
