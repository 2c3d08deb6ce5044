import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { type ServerProcess, eventually, startNats, testDatabase } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import {
  counters,
  emitAdded,
  heardCount,
  heardOf,
  oneTo,
  startCarrier,
} from '../../libs/messaging/src/carrier.spec-support.js';
import { createToyTables, natsTo } from '../../libs/messaging/src/toy.spec-support.js';

const test = testDatabase({ contexts: ['inventory', 'orders'] });
let broker: ServerProcess;
beforeAll(async () => {
  await createToyTables(test);
  broker = await startNats();
});
afterAll(() => broker?.stop());

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** What takes longer than this to be acknowledged is delivered again, ms. */
const limits = { ackWaitMs: 1_000 };

function startTaker(natsUrl: string | undefined, diesAfter: number): ChildProcess {
  const taker = spawn(process.execPath, [join(import.meta.dirname, 'taker.mjs')], {
    env: { ...process.env, TAKER: JSON.stringify({ urls: test.urls, natsUrl, limits, diesAfter }) },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  closing.push(async () => {
    if (taker.exitCode !== null || taker.signalCode !== null) return;
    taker.kill('SIGKILL');
    await once(taker, 'exit');
  });
  return taker;
}

it.each(['direct', 'jetstream'])(
  '%s: who takes events may be killed again and again between the effect and the acknowledgement',
  { timeout: 240_000 },
  async (kind) => {
    const names = counters(20);
    if (kind === 'jetstream') {
      const nats = await natsTo(broker.url);
      const publisher = startCarrier(test, nats, { without: 'consumer', limits });
      await publisher.streams!.declare(['orders']);
      closing.push(
        () => nats.close(),
        () => publisher.stop(),
      );
    }
    await emitAdded(test, names, 1, 30);
    const natsUrl = kind === 'jetstream' ? broker.url : undefined;
    for (const diesAfter of [1, 3, 2]) {
      const before = await heardCount(test, names);
      const [, signal] = (await once(startTaker(natsUrl, diesAfter), 'exit')) as [number | null, string | null];
      expect(signal).toBe('SIGKILL');
      // The effect of the last batch is there, and nobody knows.
      expect(await heardCount(test, names)).toBeGreaterThan(before);
    }
    expect(await heardCount(test, names)).toBeLessThan(600);
    startTaker(natsUrl, 0);
    await eventually(async () => expect(await heardCount(test, names)).toBe(600), { timeoutMs: 90_000 });
    const heard = await heardOf(test, names);
    for (const name of names) expect(heard.get(name)).toEqual(oneTo(30));
    const undone = `select count(*)::int as n from inventory.outbox where state <> 'done'`;
    await eventually(async () => expect((await test.admin<{ n: number }>(undone))[0]!.n).toBe(0), {
      timeoutMs: 30_000,
    });
  },
);
