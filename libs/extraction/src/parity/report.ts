import { z } from 'zod';
import { Divergence, mergeDivergences } from './divergence.js';
import { SideTraffic, addTraffic, noTraffic, p99Of } from './traffic.js';

const count = z.int().min(0);

/** How the comparisons of one operation ended. */
export const Counts = z.strictObject({
  match: count,
  /** Different where one and the same side differs from itself. */
  noise: count,
  /** Different at first, equal when asked again. */
  lag: count,
  difference: count,
  /** The candidate failed, or did not answer in time. */
  error: count,
  /** Not compared: no room, too large, or the owner itself failed. No evidence of anything. */
  dropped: count,
  /** How often one side was asked twice (A/A), and how often it differed from itself. */
  twice: count,
  unlike: count,
});
export type Counts = z.output<typeof Counts>;

const BothSides = z.strictObject({ monolith: SideTraffic, service: SideTraffic });

/** One instance's figures of one context, all since `since`. */
export const ContextReport = z.strictObject({
  /** `ContextRouting.since` of the stage that the figures are about. */
  since: z.string(),
  operations: z.record(z.string(), Counts),
  traffic: BothSides,
  divergences: z.array(Divergence),
  /** How many differing answers had exactly these divergences: their ids, joined by `+`. */
  together: z.record(z.string(), count),
});
export type ContextReport = z.output<typeof ContextReport>;

/** What a proxy, or the probe, tells the control plane: everything it has counted, so that a lost report does no harm. */
export const Report = z.strictObject({
  /** One per process and start: what an earlier process counted stays counted. */
  instance: z.string().min(1).max(200),
  role: z.enum(['proxy', 'probe']),
  contexts: z.record(z.string(), ContextReport),
});
export type Report = z.output<typeof Report>;

export interface TrafficFigures {
  requests: number;
  errors: number;
  /** 0 without requests. */
  p99Ms: number;
}

/** What all instances know of one context in one stage. */
export interface Evidence {
  since: string;
  operations: Record<string, { real: Counts; probe: Counts }>;
  traffic: Record<'real' | 'probe', Record<'monolith' | 'service', TrafficFigures>>;
  divergences: Divergence[];
  together: Record<string, number>;
}

export const noCounts = (): Counts => ({
  match: 0,
  noise: 0,
  lag: 0,
  difference: 0,
  error: 0,
  dropped: 0,
  twice: 0,
  unlike: 0,
});

export const addCounts = (a: Counts, b: Counts): Counts =>
  Object.fromEntries(Object.entries(a).map(([name, n]) => [name, n + b[name as keyof Counts]])) as Counts;

/**
 * The figures of all instances about `context` since `since`; reports about another stage are left out. Give it the
 * last report of each instance, those of ended instances included.
 */
export function mergeReports(reports: Iterable<Report>, context: string, since: string): Evidence {
  const operations: Evidence['operations'] = {};
  const traffic = {
    proxy: { monolith: noTraffic(), service: noTraffic() },
    probe: { monolith: noTraffic(), service: noTraffic() },
  };
  const divergences: Divergence[][] = [];
  const together: Record<string, number> = {};
  for (const { role, contexts } of reports) {
    const told = Object.hasOwn(contexts, context) ? contexts[context] : undefined;
    if (told?.since !== since) continue;
    for (const [operation, counts] of Object.entries(told.operations)) {
      const sum = (operations[operation] ??= { real: noCounts(), probe: noCounts() });
      const kind = role === 'proxy' ? 'real' : 'probe';
      sum[kind] = addCounts(sum[kind], counts);
    }
    for (const side of ['monolith', 'service'] as const)
      traffic[role][side] = addTraffic(traffic[role][side], told.traffic[side]);
    divergences.push(told.divergences);
    for (const [ids, n] of Object.entries(told.together)) together[ids] = (together[ids] ?? 0) + n;
  }
  return {
    since,
    operations,
    traffic: { real: figuresOf(traffic.proxy), probe: figuresOf(traffic.probe) },
    divergences: mergeDivergences(divergences),
    together,
  };
}

const figuresOf = (sides: z.output<typeof BothSides>): Evidence['traffic']['real'] => ({
  monolith: trafficFigures(sides.monolith),
  service: trafficFigures(sides.service),
});

const trafficFigures = (traffic: SideTraffic): TrafficFigures => ({
  requests: traffic.requests,
  errors: traffic.errors,
  p99Ms: p99Of(traffic),
});
