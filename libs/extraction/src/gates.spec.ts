import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Readings, defaultLimits, gatesTo, paritySummary, upperBound } from './gates.js';
import { type Counts, type Evidence, noCounts } from './parity/report.js';

const required = ['inventory.stockOf', 'GET /v1/stock/{sku}'];
const quiet = { requests: 0, errors: 0, p99Ms: 0 };

const evidence = (operations: Record<string, Partial<Counts>>, rest: Partial<Evidence> = {}): Evidence => ({
  since: 'now',
  operations: Object.fromEntries(
    Object.entries(operations).map(([name, counts]) => [
      name,
      { real: noCounts(), probe: { ...noCounts(), ...counts } },
    ]),
  ),
  traffic: {
    real: { monolith: quiet, service: quiet },
    probe: { monolith: { ...quiet, requests: 500, p99Ms: 4 }, service: { ...quiet, requests: 500, p99Ms: 5 } },
  },
  ...{ divergences: [], together: {} },
  ...rest,
});

const fine: Readings = {
  backfill: { done: true, percent: 100 },
  lag: { bytes: 0, ms: 5 },
  service: { ready: true },
  evidence: evidence({ [required[0]!]: { match: 300 }, [required[1]!]: { match: 300 } }),
  required,
};
const failing = (to: Parameters<typeof gatesTo>[0], readings: Partial<Readings>) =>
  gatesTo(to, { ...fine, ...readings }).filter(({ ok }) => !ok);
const names = (to: Parameters<typeof gatesTo>[0], readings: Partial<Readings>) =>
  failing(to, readings).map(({ name }) => name);

describe('The gates', () => {
  it('are open when everything holds', () => {
    for (const to of ['monolith', 'replicate', 'shadow', 'canary', 'live'] as const)
      expect(failing(to, {})).toEqual([]);
    expect(gatesTo('replicate', fine)).toEqual([]);
    expect(gatesTo('live', fine).map(({ name }) => name)).toEqual([
      ...['service', 'lag', 'samples', 'differences', 'service errors', 'latency'],
    ]);
  });

  it('are shut when nothing is known, each with what to do', () => {
    const nothing: Readings = { backfill: null, lag: null, service: null, evidence: null, required };
    expect(names('shadow', nothing)).toEqual(['service', 'backfill', 'lag']);
    expect(names('canary', nothing)).toEqual(['service', 'lag', 'samples', 'differences', 'service errors']);
    for (const to of ['shadow', 'canary', 'live'] as const)
      for (const { reason } of failing(to, nothing)) expect(reason).toMatch(/^[A-Z].{20,}\.$/);
  });

  it.each<[string, Partial<Readings>, string]>([
    ['rows are still being copied', { backfill: { done: false, percent: 99.9 } }, 'backfill'],
    ['the copy is late', { lag: { bytes: 0, ms: 2_001 } }, 'lag'],
    ['the copy has much to catch up', { lag: { bytes: 2 ** 30, ms: 0 } }, 'lag'],
    ['the service is not ready', { service: { ready: false, error: 'no database' } }, 'service'],
  ])('to shadow are shut while %s', (_, readings, name) => {
    expect(names('shadow', readings)).toEqual([name]);
  });

  it('let nothing pass that was not compared: an empty comparison is no proof', () => {
    expect(names('canary', { evidence: evidence({}) })).toContain('samples');
    expect(names('canary', { evidence: evidence({}), required: [] })).toEqual(['samples', 'differences']);
    const unseen = evidence({ [required[0]!]: { match: 100_000 } });
    expect(failing('canary', { evidence: unseen })[0]?.reason).toContain('GET /v1/stock/{sku} (0 of 30)');
    const dropped = evidence({ [required[0]!]: { match: 1_000 }, [required[1]!]: { dropped: 1_000 } });
    expect(names('canary', { evidence: dropped })).toEqual(['samples']);
    const blind = evidence({ ...probeOf(fine), 'GET /v1/other': { dropped: 30 } });
    expect(failing('canary', { evidence: blind })[0]?.reason).toContain('GET /v1/other (none could be compared)');
  });

  it('count errors and timeouts of the candidate as differences', () => {
    const dead = evidence({ [required[0]!]: { error: 500 }, [required[1]!]: { error: 500 } });
    expect(failing('canary', { evidence: dead })).toMatchObject([
      { name: 'differences', value: '0 differences, 1000 errors, at most 100 % of 1000' },
    ]);
  });

  it('look at every operation by itself: a seldom one does not drown in the others', () => {
    const one = evidence({ [required[0]!]: { match: 100_000 }, [required[1]!]: { match: 39, difference: 1 } });
    const [gate] = failing('canary', { evidence: one });
    expect(gate).toMatchObject({ name: 'differences' });
    expect(gate!.reason).toContain('GET /v1/stock/{sku} (1 of 40)');
  });

  it('are shut when the service fails for callers', () => {
    const traffic = {
      ...fine.evidence!.traffic,
      real: { monolith: quiet, service: { ...quiet, requests: 400, errors: 40 } },
    };
    expect(names('live', { evidence: { ...fine.evidence!, traffic } })).toEqual(['service errors']);
  });

  it('do not count what an operator has acknowledged, and nothing else', () => {
    const acknowledged = { by: 'ops', reason: 'meant so', at: 'now' };
    const divergence = (id: string, accepted: boolean) => ({
      ...{ id, context: 'inventory', operation: required[0]!, path: `/${id}`, kind: 'changed' as const },
      ...{ verdict: 'difference' as const, count: 50, firstSeen: 'a', lastSeen: 'b', samples: [] },
      acknowledged: accepted ? acknowledged : null,
    });
    const differing = { [required[0]!]: { match: 300, difference: 50 }, [required[1]!]: { match: 300 } };
    const known = evidence(differing, {
      divergences: [divergence('a', true), divergence('b', false)],
      together: { a: 50 },
    });
    expect(failing('canary', { evidence: known })).toEqual([]);
    expect(paritySummary(known)).toMatchObject({ samples: 650, differences: 0 });
    expect(names('canary', { evidence: { ...known, together: { 'a+b': 50 } } })).toEqual(['differences']);
    expect(names('canary', { evidence: { ...known, together: {} } })).toEqual(['differences']);
  });

  it('can be passed by an idle shop within two minutes: 400 comparisons at 40 a second', () => {
    const short = defaultLimits.samples / 40;
    expect(2 * short).toBeLessThan(30);
    expect(upperBound(0, defaultLimits.samples)).toBeLessThanOrEqual(defaultLimits.differenceRate);
    const enough = evidence({ [required[0]!]: { match: 200 }, [required[1]!]: { match: 200 } });
    expect(failing('canary', { evidence: enough })).toEqual([]);
  });
});

const probeOf = (readings: Readings) =>
  Object.fromEntries(Object.entries(readings.evidence!.operations).map(([name, { probe }]) => [name, probe]));

describe('The upper bound of a rate', () => {
  it('is 1 without samples, falls with samples, rises with events, and is never below the rate itself', () => {
    expect(upperBound(0, 0)).toBe(1);
    fc.assert(
      fc.property(fc.nat(10_000), fc.nat(10_000), (a, b) => {
        const [events, samples] = [Math.min(a, b), Math.max(a, b, 1)];
        const bound = upperBound(events, samples);
        expect(bound).toBeGreaterThanOrEqual(events / samples - 1e-12);
        expect(bound).toBeLessThanOrEqual(1);
        expect(upperBound(events, samples + 1)).toBeLessThanOrEqual(bound + 1e-12);
        if (events < samples) expect(upperBound(events + 1, samples)).toBeGreaterThanOrEqual(bound - 1e-12);
      }),
      { numRuns: 2_000 },
    );
  });

  it('holds the true rate in at least 93 of 100 experiments, and usually in more', () => {
    let seed = 42;
    const random = () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
    for (const [rate, samples] of [
      [0.01, 400],
      [0.005, 1_000],
      [0.2, 100],
    ] as const) {
      let held = 0;
      for (let run = 0; run < 2_000; run += 1) {
        let events = 0;
        for (let n = 0; n < samples; n += 1) if (random() < rate) events += 1;
        if (upperBound(events, samples) >= rate) held += 1;
      }
      expect(held / 2_000).toBeGreaterThan(0.93);
    }
  });
});

describe('A gate', () => {
  const counts = fc.record({
    ...{ match: fc.nat(2_000), noise: fc.nat(50), lag: fc.nat(50), difference: fc.nat(20), error: fc.nat(20) },
    ...{ dropped: fc.nat(50), twice: fc.constant(0), unlike: fc.constant(0) },
  });
  const operations = fc.record({ 'inventory.stockOf': counts, 'GET /v1/stock/{sku}': counts });
  const open = (all: Record<string, Counts>, to: 'canary' | 'live' = 'canary') =>
    failing(to, { evidence: evidence(all) }).length === 0;

  it('that is shut stays shut when there are more differences, errors or drops', () => {
    fc.assert(
      fc.property(
        operations,
        fc.constantFrom('difference', 'error', 'dropped'),
        fc.integer({ min: 1, max: 50 }),
        (all, worse, by) => {
          const more = structuredClone(all);
          more['GET /v1/stock/{sku}'][worse] += by;
          if (!open(all)) expect(open(more)).toBe(worse === 'dropped' ? open(all) : false);
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it('that is open stays open when there are more matches', () => {
    fc.assert(
      fc.property(operations, fc.integer({ min: 1, max: 5_000 }), (all, by) => {
        const more = structuredClone(all);
        more['inventory.stockOf'].match += by;
        if (open(all)) expect(open(more)).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });

  it('never opens without 30 samples of every operation, 400 in all, and a bound of 1 %', () => {
    fc.assert(
      fc.property(operations, fc.constantFrom<'canary' | 'live'>('canary', 'live'), (all, to) => {
        if (!open(all, to)) return;
        const each = Object.values(all).map((c) => ({
          samples: c.match + c.noise + c.lag + c.difference + c.error,
          bad: c.difference + c.error,
        }));
        const samples = each.reduce((sum, one) => sum + one.samples, 0);
        const bad = each.reduce((sum, one) => sum + one.bad, 0);
        expect(Math.min(...each.map((one) => one.samples))).toBeGreaterThanOrEqual(30);
        expect(samples).toBeGreaterThanOrEqual(400);
        expect(upperBound(bad, samples)).toBeLessThanOrEqual(0.01);
      }),
      { numRuns: 5_000 },
    );
  });
});
