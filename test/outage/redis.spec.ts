import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { jsonRun } from '../support/json-run.spec-support.js';

interface Outcome {
  violations: string[];
  figures: { openAgainMs: number; orders: number; requests: number };
}

const RUN_LIMIT_MS = 150_000;

/* 40 requests a second and 4 s; `node test/outage/redis.mjs` has 200 and 30. */
describe('While Redis is gone, and once it is back with nothing in it', () => {
  let outcome: Outcome;

  beforeAll(async () => {
    const script = join(import.meta.dirname, 'redis.mjs');
    const args = ['--no-build', '--rate=40', '--gone=4', '--beside=3', '--emptied'];
    outcome = await jsonRun(script, args, RUN_LIMIT_MS);
  }, RUN_LIMIT_MS + 30_000);

  it('nobody can sign in, and is told when to come back; everything else is answered; what jobs do is done later', () => {
    expect(outcome.violations).toEqual([]);
    expect(outcome.figures.requests).toBeGreaterThan(300);
    expect(outcome.figures.orders).toBeGreaterThan(3);
  });

  it('signing in is open again at once', () => {
    expect(outcome.figures.openAgainMs).toBeLessThan(5_000);
  });
});
