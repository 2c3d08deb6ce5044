import { beforeAll, describe, expect, it } from 'vitest';
import { HOOK_LIMIT_MS, type Outcome, runCutover, violationsOf } from './run.spec-support.js';

/*
 * The real thing, shortened: `banyan up` on a folder of its own, 120 requests a second, inventory twice and orders once
 * out and back, and once more with processes that kill themselves at six steps on the way. `npm run test:cutover`
 * is the long one. Run alone: what it measures would suffer from other specs beside it.
 */
describe('Contexts that leave a shop under load and come back', () => {
  let outcome: Outcome;

  beforeAll(async () => {
    outcome = await runCutover('--short', '--rate=120');
  }, HOOK_LIMIT_MS);

  it.each([
    ['have every request answered: no 5xx, no reset, no timeout', 'answered'],
    ['have one owner at every instant', 'owner'],
    ['lose no order, payment, reservation or event, and do none twice', 'books'],
    ['show every client its own last write', 'ownWrites'],
    ['pause their writes for less than 150 ms', 'pause'],
    ['end where their flags say', 'stages'],
    ['go on after a kill at any step, and answer a retry with the same key', 'faults'],
    ['leave no process behind, and lose none', 'processes'],
  ])('%s', (_, check) => {
    expect(violationsOf(outcome, check)).toEqual([]);
  });

  it('have met enough load, hand-overs and kills to say so', () => {
    const { requests, orders, handovers, failPoints, looks } = outcome.figures as Record<string, number>;
    expect(requests).toBeGreaterThan(5_000);
    expect(orders).toBeGreaterThan(200);
    // Inventory three times and orders once, out and back; more when one was taken back on the way.
    expect(handovers).toBeGreaterThanOrEqual(8);
    expect(failPoints).toBe(6);
    expect(looks).toBeGreaterThan(1_000);
  });
});
