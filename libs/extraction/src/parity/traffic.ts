import { z } from 'zod';

/** What one side served, in a form that adds up over instances. */
export const SideTraffic = z.strictObject({
  requests: z.int().min(0),
  errors: z.int().min(0),
  /** How many answers took up to GROWTH^key ms. */
  latency: z.record(z.string().regex(/^\d{1,3}$/), z.int().min(0)),
});
export type SideTraffic = z.output<typeof SideTraffic>;

/** Slots grow by 10 %: a percentile is at most that much too high, and no instance sends more than 150 numbers. */
const GROWTH = 1.1;

export const noTraffic = (): SideTraffic => ({ requests: 0, errors: 0, latency: {} });

export function countAnswer(traffic: SideTraffic, ms: number, failed: boolean): void {
  traffic.requests += 1;
  if (failed) traffic.errors += 1;
  const slot = Math.min(150, Math.max(0, Math.ceil(Math.log(ms) / Math.log(GROWTH)))) || 0;
  traffic.latency[slot] = (traffic.latency[slot] ?? 0) + 1;
}

export function addTraffic(a: SideTraffic, b: SideTraffic): SideTraffic {
  const latency = { ...a.latency };
  for (const [slot, n] of Object.entries(b.latency)) latency[slot] = (latency[slot] ?? 0) + n;
  return { requests: a.requests + b.requests, errors: a.errors + b.errors, latency };
}

/** The time within which 99 % were answered, ms; 0 without answers. */
export function p99Of({ requests, latency }: SideTraffic): number {
  let left = requests * 0.99;
  for (const slot of Object.keys(latency).sort((a, b) => Number(a) - Number(b))) {
    left -= latency[slot]!;
    if (left <= 1e-9) return Number((GROWTH ** Number(slot)).toFixed(1));
  }
  return 0;
}
