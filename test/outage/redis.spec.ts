import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';

interface Outcome {
  violations: string[];
  figures: { openAgainMs: number; orders: number; requests: number };
}

/* 40 requests a second and 4 s; `node test/outage/redis.mjs` has 200 and 30. */
describe('While Redis is gone, and once it is back with nothing in it', () => {
  let outcome: Outcome;

  beforeAll(async () => {
    const script = join(import.meta.dirname, 'redis.mjs');
    const args = ['--json', '--no-build', '--rate=40', '--gone=4', '--beside=3', '--emptied'];
    const { out, err } = await new Promise<{ out: string; err: string }>((done) =>
      execFile(process.execPath, [script, ...args], (_, stdout, stderr) => done({ out: stdout, err: stderr })),
    );
    const last = out.trimEnd().split('\n').at(-1);
    if (!last?.startsWith('{')) throw new Error(`The run came to no end:\n${err}`);
    outcome = JSON.parse(last) as Outcome;
  }, 180_000);

  it('nobody can sign in, and is told when to come back; everything else is answered; what jobs do is done later', () => {
    expect(outcome.violations).toEqual([]);
    expect(outcome.figures.requests).toBeGreaterThan(300);
    expect(outcome.figures.orders).toBeGreaterThan(3);
  });

  it('signing in is open again at once', () => {
    expect(outcome.figures.openAgainMs).toBeLessThan(5_000);
  });
});
