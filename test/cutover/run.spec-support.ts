import { join } from 'node:path';
import { jsonRun } from '../support/json-run.spec-support.js';

export interface Outcome {
  verdicts: { check: string; sentence: string; violations: string[] }[];
  figures: Record<string, unknown>;
}

const RUN_LIMIT_MS = 480_000;
/** A run that takes too long stops some twenty processes before it ends. */
export const HOOK_LIMIT_MS = RUN_LIMIT_MS + 60_000;

/** `npm run test:cutover` with these options: what it found. */
export function runCutover(...args: string[]): Promise<Outcome> {
  return jsonRun(join(import.meta.dirname, 'run.mjs'), args, RUN_LIMIT_MS);
}

export function violationsOf({ verdicts }: Outcome, check: string): string[] {
  const verdict = verdicts.find((each) => each.check === check);
  if (!verdict) throw new Error(`There is no check ${check}`);
  return verdict.violations;
}
