import { z } from 'zod';
import { Side, Stage } from './stage.js';

/** One reading of what must hold before a stage may advance. */
export const GateReading = z.strictObject({
  name: z.string(),
  ok: z.boolean(),
  /** The measured value and the limit, as people read them: `12 kB`, `0.4 %`. */
  value: z.string(),
  limit: z.string(),
  /** What is missing, and what to do; null when the gate holds. */
  reason: z.string().nullable(),
});
export type GateReading = z.output<typeof GateReading>;

export const Transition = z.strictObject({
  at: z.string(),
  from: Stage,
  to: Stage,
  actor: z.string(),
  reason: z.string(),
});
export type Transition = z.output<typeof Transition>;

/** What `GET /control/contexts/{c}` answers, and what the stream tells when it changes. */
export const ContextStatus = z.strictObject({
  context: z.string(),
  stage: Stage,
  target: Stage,
  /** Share of reads that canary sends to the service, per cent. */
  percent: z.number(),
  /** null while the owner is changing. */
  owner: Side.nullable(),
  epoch: z.int(),
  frozen: z.boolean(),
  /** What is being done just now, in words: `copying rows (43 %)`; null when nothing has to be done. */
  doing: z.string().nullable(),
  /** Why it does not go on, and what to do about it; null when nothing is in the way. */
  blocked: z.string().nullable(),
  /** How far the copy is behind the owner; null when nothing is copied. */
  lag: z.strictObject({ bytes: z.number(), ms: z.number() }).nullable(),
  backfill: z.strictObject({ percent: z.number(), rows: z.number() }).nullable(),
  parity: z
    .strictObject({
      samples: z.number(),
      differences: z.number(),
      errors: z.number(),
      /** Upper end of the 95 % confidence interval of the rate of differences and errors, 0 to 1. */
      upperBound: z.number(),
    })
    .nullable(),
  gates: z.array(GateReading),
  /** The last ten, the newest first. */
  transitions: z.array(Transition),
});
export type ContextStatus = z.output<typeof ContextStatus>;
