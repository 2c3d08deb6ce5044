import { beforeAll, describe, expect, it } from 'vitest';
import { HOOK_LIMIT_MS, type Outcome, runCutover, violationsOf } from './run.spec-support.js';

/*
 * `banyan up` with three monoliths, two proxies, two control planes and two instances of a service, 60 requests a second:
 * inventory out and back in peace, then while one process of each kind after the other is killed. Run alone.
 */
describe('A fleet', () => {
  let outcome: Outcome;

  beforeAll(async () => {
    outcome = await runCutover('--fleet', '--rate=60');
  }, HOOK_LIMIT_MS);

  it.each([
    ['answers every request, kills apart', 'answered'],
    ['fails only what a killed process was just doing: 502, a reset, or 503 with Retry-After', 'faults'],
    ['has one owner at every instant', 'owner'],
    ['loses no order, payment, reservation or event, and does none twice', 'books'],
    ['sends a user to one side, whichever proxy is asked', 'ownWrites'],
    ['pauses its writes for less than 150 ms, kills apart', 'pause'],
    ['ends where its flags say', 'stages'],
    ['leaves no process behind, and loses none', 'processes'],
  ])('%s', (_, check) => {
    expect(violationsOf(outcome, check)).toEqual([]);
  });

  it('has met enough load, hand-overs and kills to say so', () => {
    const { requests, handovers, sides, killed } = outcome.figures as {
      requests: number;
      handovers: number;
      sides: Record<string, number>;
      killed: Record<string, number>;
    };
    expect(requests).toBeGreaterThan(1_500);
    expect(handovers).toBeGreaterThanOrEqual(4);
    expect(Math.min(sides.monolith!, sides.service!)).toBeGreaterThan(2);
    expect(killed).toEqual({ monolith: 2, 'control-plane': 1, service: 1, proxy: 1 });
  });
});
