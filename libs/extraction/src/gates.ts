import type { Counts, Evidence } from './parity/report.js';
import type { Stage } from './stage.js';
import type { ContextStatus, GateReading } from './status.js';

/** What the gates ask for. */
export interface GateLimits {
  /** How far the copy may be behind. */
  lagMs: number;
  lagBytes: number;
  /** Comparisons of every operation that has to be seen, and of all operations together. */
  samplesPerOperation: number;
  samples: number;
  /** Upper end of the 95 % confidence interval of the rate of differences and errors, 0 to 1. */
  differenceRate: number;
  /** The same of the service's failures of all that it was asked. */
  errorRate: number;
}

/**
 * Without any difference 381 samples are needed for an upper bound of 1 %: at the probe's 40 reads a second an idle
 * shop has 400 after ten seconds.
 */
export const defaultLimits: GateLimits = {
  lagMs: 2_000,
  lagBytes: 16 * 1024 * 1024,
  samplesPerOperation: 30,
  samples: 400,
  differenceRate: 0.01,
  errorRate: 0.01,
};

/** Everything that is known of a context at one moment; null where nothing is known. */
export interface Readings {
  backfill: { done: boolean; percent: number } | null;
  lag: { bytes: number; ms: number } | null;
  service: { ready: boolean; error?: string } | null;
  /** Figures since the present stage was entered; an acknowledged divergence does not count. */
  evidence: Evidence | null;
  /** `requiredOperations` of the context's contract. */
  required: readonly string[];
}

/**
 * What must hold before the stage `to` may be entered from the one before it, each with its reading. No gates on the
 * way to `replicate` (nothing is served differently there), and none on the way back.
 */
export function gatesTo(to: Stage, readings: Readings, limits: GateLimits = defaultLimits): GateReading[] {
  const ready = serviceReady(readings);
  const lag = lagSmall(readings, limits);
  const proof = () => [
    enoughSamples(readings, limits),
    fewDifferences(readings, limits),
    fewServiceErrors(readings, limits),
  ];
  switch (to) {
    case 'monolith':
    case 'replicate':
      return [];
    case 'shadow':
      return [ready, backfillDone(readings), lag];
    case 'canary':
      return [ready, lag, ...proof()];
    case 'live':
      return [ready, lag, ...proof(), latency(readings)];
  }
}

/** The figures that a context's status shows; null when nothing is compared. */
export function paritySummary(evidence: Evidence | null): ContextStatus['parity'] {
  if (!evidence) return null;
  const { samples, differences, errors } = tallyOf(evidence);
  return { samples, differences, errors, upperBound: upperBound(differences + errors, samples) };
}

/**
 * Upper end of the 95 % confidence interval of a rate (Wilson's score interval): 1 without samples, and about 4/n when
 * nothing was seen in n samples. Written out because it is one line; for no or few events it is the careful one of the
 * usual intervals.
 */
export function upperBound(events: number, samples: number): number {
  if (samples <= 0) return 1;
  const z = 1.96;
  const rate = Math.min(1, events / samples);
  const spread = z * Math.sqrt((rate * (1 - rate)) / samples + (z * z) / (4 * samples * samples));
  return Math.min(1, (rate + (z * z) / (2 * samples) + spread) / (1 + (z * z) / samples));
}

interface Tally {
  /** Comparisons that say something: noise does about the rest of the answer, what was dropped does not. */
  samples: number;
  dropped: number;
  differences: number;
  errors: number;
}

const tally = (counts: readonly Counts[], excused: number): Tally => {
  const sum = (pick: (each: Counts) => number) => counts.reduce((total, each) => total + pick(each), 0);
  return {
    samples: sum((each) => each.match + each.noise + each.lag + each.difference + each.error),
    dropped: sum((each) => each.dropped),
    differences: sum((each) => each.difference) - excused,
    errors: sum((each) => each.error),
  };
};

/** How many differing answers of each operation had nothing but divergences that an operator has accepted. */
function excusedOf({ divergences, together }: Evidence): Map<string, number> {
  const accepted = new Map(
    divergences
      .filter(({ acknowledged, verdict }) => acknowledged && verdict === 'difference')
      .map(({ id, operation }) => [id, operation]),
  );
  const excused = new Map<string, number>();
  for (const [ids, n] of Object.entries(together)) {
    const operations = ids.split('+').map((id) => accepted.get(id));
    const [operation] = operations;
    if (operation !== undefined && !operations.includes(undefined))
      excused.set(operation, (excused.get(operation) ?? 0) + n);
  }
  return excused;
}

const talliesOf = (evidence: Evidence): Map<string, Tally> => {
  const excused = excusedOf(evidence);
  return new Map(
    Object.entries(evidence.operations).map(([operation, { real, probe }]) => [
      operation,
      tally([real, probe], excused.get(operation) ?? 0),
    ]),
  );
};

const nothing: Tally = { samples: 0, dropped: 0, differences: 0, errors: 0 };

const tallyOf = (evidence: Evidence): Tally =>
  [...talliesOf(evidence).values()].reduce(
    (a, b) => ({
      samples: a.samples + b.samples,
      dropped: a.dropped + b.dropped,
      differences: a.differences + b.differences,
      errors: a.errors + b.errors,
    }),
    nothing,
  );

const reading = (name: string, ok: boolean, value: string, limit: string, reason: string): GateReading => ({
  name,
  ok,
  value,
  limit,
  reason: ok ? null : reason,
});

function serviceReady({ service }: Readings): GateReading {
  const ready = service?.ready === true;
  const why = service?.error ?? 'it has not said that it is ready';
  return reading(
    'service',
    ready,
    ready ? 'ready' : service ? 'not ready' : 'not running',
    'ready',
    `The service does not serve: ${why}. Its log says more; it is started again by itself.`,
  );
}

function backfillDone({ backfill }: Readings): GateReading {
  const value = backfill ? `${Math.floor(Math.min(100, backfill.percent))} %` : 'not begun';
  const next = backfill ? 'Wait for the copy to end.' : 'Look whether the bridge runs: it copies the rows.';
  return reading('backfill', backfill?.done === true, value, 'done', `The rows are not all copied yet. ${next}`);
}

function lagSmall({ lag }: Readings, limits: GateLimits): GateReading {
  const ok = lag !== null && lag.ms <= limits.lagMs && lag.bytes <= limits.lagBytes;
  return reading(
    'lag',
    ok,
    lag ? `${duration(lag.ms)}, ${size(lag.bytes)}` : 'unknown',
    `${duration(limits.lagMs)}, ${size(limits.lagBytes)}`,
    lag
      ? 'The copy is too far behind its owner. Wait, or look at what holds the bridge up.'
      : 'Nobody says how far behind the copy is. Look whether the bridge runs.',
  );
}

function enoughSamples({ evidence, required }: Readings, limits: GateLimits): GateReading {
  const tallies = evidence ? talliesOf(evidence) : new Map<string, Tally>();
  const seen = (operation: string) => tallies.get(operation)?.samples ?? 0;
  const all = [...tallies.values()].reduce((sum, each) => sum + each.samples, 0);
  const short = required.filter((operation) => seen(operation) < limits.samplesPerOperation);
  // An operation that callers use, and of which not one answer could be compared, is not proved by the others.
  const blind = [...tallies].filter(
    ([operation, { samples, dropped }]) =>
      samples === 0 && dropped >= limits.samplesPerOperation && !required.includes(operation),
  );
  const missing = [
    ...short.map((operation) => `${operation} (${seen(operation)} of ${limits.samplesPerOperation})`),
    ...blind.map(([operation]) => `${operation} (none could be compared)`),
    ...(all < limits.samples ? [`${all} of ${limits.samples} in all`] : []),
  ];
  // With nothing to compare there is no proof: an empty comparison never passes (trap 14).
  if (required.length === 0 && all === 0) missing.push('no operation has examples');
  return reading(
    'samples',
    missing.length === 0 && all > 0,
    `${all} in ${[...tallies.values()].filter(({ samples }) => samples > 0).length} operations`,
    `${limits.samples}, and ${limits.samplesPerOperation} of each of ${required.length} operations`,
    `Too few comparisons yet: ${missing.join(', ')}. The probe makes about 40 a second; callers add to them.`,
  );
}

function fewDifferences({ evidence }: Readings, limits: GateLimits): GateReading {
  const tallies = evidence ? talliesOf(evidence) : new Map<string, Tally>();
  const all = evidence ? tallyOf(evidence) : nothing;
  const bound = upperBound(all.differences + all.errors, all.samples);
  // An operation that is seldom asked drowns in the sum: it has to hold by itself, or be without any difference.
  const bad = [...tallies].filter(([, { samples, differences, errors }]) => {
    const events = differences + errors;
    return events > 0 && upperBound(events, samples) > limits.differenceRate;
  });
  const names = bad.map(
    ([operation, { samples, differences, errors }]) => `${operation} (${differences + errors} of ${samples})`,
  );
  return reading(
    'differences',
    all.samples > 0 && bound <= limits.differenceRate && bad.length === 0,
    `${all.differences} differences, ${all.errors} errors, at most ${percent(bound)} of ${all.samples}`,
    percent(limits.differenceRate),
    all.differences + all.errors === 0
      ? `Too few comparisons to tell: ${all.samples} without a difference.`
      : `The service does not answer as the monolith does: ${names.join(', ') || 'over all operations'}. ` +
          'Look at the divergences; mend the service, or add a parity rule, or acknowledge what is meant to differ. ' +
          'The figures start afresh when the stage is entered again.',
  );
}

function fewServiceErrors({ evidence }: Readings, limits: GateLimits): GateReading {
  const sides = evidence ? [evidence.traffic.real.service, evidence.traffic.probe.service] : [];
  const requests = sides.reduce((sum, each) => sum + each.requests, 0);
  const errors = sides.reduce((sum, each) => sum + each.errors, 0);
  const bound = upperBound(errors, requests);
  return reading(
    'service errors',
    requests > 0 && bound <= limits.errorRate,
    `${errors} of ${requests}, at most ${percent(bound)}`,
    percent(limits.errorRate),
    errors === 0
      ? `The service has not been asked often enough to tell: ${requests} times.`
      : 'The service fails too often. Its log says why; the figures start afresh when the stage is entered again.',
  );
}

/** Reported, never in the way: a copy that is cold is slower for a while. */
function latency({ evidence }: Readings): GateReading {
  const p99 = (side: 'monolith' | 'service') =>
    Math.max(0, ...(evidence ? [evidence.traffic.real[side].p99Ms, evidence.traffic.probe[side].p99Ms] : []));
  const [monolith, service] = [p99('monolith'), p99('service')];
  const ratio = monolith > 0 && service > 0 ? `${(service / monolith).toFixed(1)} ×` : 'unknown';
  return reading('latency', true, `${ratio} (p99 ${service} ms to ${monolith} ms)`, 'reported only', '');
}

const percent = (rate: number): string => `${(rate * 100).toFixed(rate < 0.1 ? 2 : 0)} %`;

const duration = (ms: number): string => (ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`);

const size = (bytes: number): string =>
  bytes < 1_024
    ? `${Math.round(bytes)} B`
    : bytes < 1_024 ** 2
      ? `${Math.round(bytes / 1_024)} kB`
      : `${(bytes / 1_024 ** 2).toFixed(1)} MB`;
