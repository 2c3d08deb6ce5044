import { execFile } from 'node:child_process';
import { join } from 'node:path';

export interface Outcome {
  verdicts: { check: string; sentence: string; violations: string[] }[];
  figures: Record<string, unknown>;
}

/** `npm run test:cutover` with these options: what it found. */
export async function runCutover(...args: string[]): Promise<Outcome> {
  const script = join(import.meta.dirname, 'run.mjs');
  const { stdout, stderr } = await new Promise<{ stdout: string; stderr: string }>((done) =>
    execFile(process.execPath, [script, '--json', ...args], { maxBuffer: 64 << 20 }, (_, out, err) =>
      done({ stdout: out, stderr: err }),
    ),
  );
  const last = stdout.trimEnd().split('\n').at(-1);
  if (!last?.startsWith('{')) throw new Error(`The run came to no end:\n${stderr}`);
  return JSON.parse(last) as Outcome;
}

export function violationsOf({ verdicts }: Outcome, check: string): string[] {
  const verdict = verdicts.find((each) => each.check === check);
  if (!verdict) throw new Error(`There is no check ${check}`);
  return verdict.violations;
}
