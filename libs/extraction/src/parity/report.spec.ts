import { describe, expect, it } from 'vitest';
import { Figures } from './figures.js';
import { Report, mergeReports } from './report.js';

const about = (operation: string) => ({ context: 'shop', operation, since: 'now' });
const differing = { verdict: 'difference' as const, differences: [{ kind: 'changed' as const, path: '/a' }] };

describe('Reports', () => {
  it('of several instances add up, real traffic and probes apart', () => {
    const [one, two, probe] = [new Figures(), new Figures(), new Figures()];
    for (const figures of [one, two, probe]) {
      figures.begin('shop', 'now');
      figures.compared(about('a'), { verdict: 'match', differences: [] });
      figures.compared(about('a'), differing);
      figures.served('shop', 'service', 8, false);
    }
    one.served('shop', 'monolith', 100, true);
    two.begin('other', 'now');
    const reports = [one.report('p1', 'proxy')!, two.report('p2', 'proxy')!, probe.report('x', 'probe')!];
    for (const report of reports) expect(Report.parse(JSON.parse(JSON.stringify(report)))).toEqual(report);
    const evidence = mergeReports(reports, 'shop', 'now');
    expect(evidence.operations['a']).toMatchObject({
      real: { match: 2, difference: 2 },
      probe: { match: 1, difference: 1 },
    });
    expect(evidence.traffic.real).toMatchObject({ monolith: { requests: 1, errors: 1 }, service: { requests: 2 } });
    expect(evidence.traffic.probe.service).toMatchObject({ requests: 1, errors: 0 });
    expect(evidence.divergences).toMatchObject([{ path: '/a', count: 3 }]);
    expect(evidence.together).toEqual({ [evidence.divergences[0]!.id]: 3 });
  });

  it('about another stage, or of a context that is not there, count nothing', () => {
    const figures = new Figures();
    figures.begin('shop', 'before');
    figures.compared({ ...about('a'), since: 'before' }, differing);
    const reports = [figures.report('p1', 'proxy')!];
    expect(mergeReports(reports, 'shop', 'now')).toMatchObject({ operations: {}, divergences: [], together: {} });
    expect(mergeReports(reports, 'toString', 'before').operations).toEqual({});
  });

  it('are due when something is new, and again when one was not delivered', () => {
    const figures = new Figures();
    expect(figures.report('p', 'proxy')).toBeUndefined();
    figures.begin('shop', 'now');
    expect(figures.report('p', 'proxy')).toBeDefined();
    figures.begin('shop', 'now');
    expect(figures.report('p', 'proxy')).toBeUndefined();
    figures.served('shop', 'monolith', 1, false);
    expect(figures.report('p', 'proxy')).toBeDefined();
    figures.undelivered();
    expect(figures.report('p', 'proxy')).toBeDefined();
  });

  it('do not change when counting goes on', () => {
    const figures = new Figures();
    figures.begin('shop', 'now');
    figures.compared(about('a'), differing);
    const before = figures.report('p', 'proxy')!;
    const copy = structuredClone(before);
    figures.compared(about('a'), differing);
    expect(before).toEqual(copy);
  });

  it('start from nothing with each stage, and forget what began in the one before', () => {
    const figures = new Figures();
    figures.begin('shop', 'now');
    figures.compared(about('a'), differing);
    figures.begin('shop', 'later');
    figures.compared(about('a'), differing);
    expect(figures.contexts()['shop']).toMatchObject({ since: 'later', operations: {}, divergences: [] });
    figures.end('shop');
    expect(figures.contexts()).toEqual({});
  });

  it('have a bounded number of operations, whatever clients ask for', () => {
    const figures = new Figures();
    figures.begin('shop', 'now');
    for (let n = 0; n < 1_000; n += 1) figures.compared(about(`op ${n}`), { verdict: 'match', differences: [] });
    const { operations } = figures.contexts()['shop']!;
    expect(Object.keys(operations)).toHaveLength(201);
    expect(operations['(other)']!.match).toBe(800);
  });

  it('tell percentiles that are at most 10 % too high', () => {
    const [a, b] = [new Figures(), new Figures()];
    for (const figures of [a, b]) figures.begin('shop', 'now');
    for (let ms = 1; ms <= 1_000; ms += 1) (ms % 2 ? a : b).served('shop', 'service', ms, false);
    const { p99Ms } = mergeReports([a.report('a', 'proxy')!, b.report('b', 'proxy')!], 'shop', 'now').traffic.real
      .service;
    expect(p99Ms).toBeGreaterThanOrEqual(990);
    expect(p99Ms).toBeLessThanOrEqual(990 * 1.1);
  });
});
