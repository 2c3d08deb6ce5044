import { type GateReading, type Stage, gatesTo } from '@banyan/extraction';
import { type Evidence, mergeDivergences } from '@banyan/extraction/parity';
import type { Reports } from './reports.js';
import type { ProcessState } from './runtime.js';
import type { StreamState } from './streams.js';

/** What was counted of a context since then; what an operator has accepted is marked. */
export function evidenceOf(reports: Reports, context: string, since: string): Evidence {
  const evidence = reports.evidence(context, since);
  const divergences = mergeDivergences([evidence.divergences], reports.acknowledgements(context));
  return { ...evidence, divergences };
}

/** A stream without a copy began as a way back, when its target had every row, and has told of all since. */
const copyOf = (stream: StreamState | undefined) =>
  stream?.kind === 'prepared' ? (stream.copy ?? { percent: 100, done: true }) : null;

/** What has to hold before `next` is entered, read now. */
export function readGates(
  next: Stage,
  seen: {
    stream: StreamState | undefined;
    service: ProcessState | undefined;
    evidence: Evidence;
    required: readonly string[];
  },
): GateReading[] {
  const { stream, service, evidence, required } = seen;
  return gatesTo(next, {
    backfill: copyOf(stream),
    lag: stream?.lag ?? null,
    service: service ? { ready: service.ready, error: service.error } : null,
    evidence,
    required,
  });
}
