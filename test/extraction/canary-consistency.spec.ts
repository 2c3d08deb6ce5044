import { beforeAll, describe, expect, it } from 'vitest';
import { HOOK_LIMIT_MS, type Outcome, runCutover, violationsOf } from '../cutover/run.spec-support.js';

/* 1,000 pairs by 60 sessions; `npm run test:cutover -- --canary` makes 10,000. */
describe('In canary at 50 %', () => {
  let outcome: Outcome;

  beforeAll(async () => {
    outcome = await runCutover('--canary', '--pairs=1000');
  }, HOOK_LIMIT_MS);

  it('a client reads what it has just written, with or without its consistency token, and stays on its side', () => {
    expect(violationsOf(outcome, 'ownWrites')).toEqual([]);
  });

  it('every request is answered', () => {
    expect(violationsOf(outcome, 'answered')).toEqual([]);
  });

  it('both sides have really served', () => {
    const { pairs, served } = outcome.figures as { pairs: number; served: Record<string, number> };
    expect(pairs).toBeGreaterThanOrEqual(1_000);
    expect(served.monolith).toBeGreaterThan(100);
    expect(served.service).toBeGreaterThan(100);
  });
});
