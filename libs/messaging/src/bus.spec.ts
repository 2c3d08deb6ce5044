import { Logger } from '@nestjs/common';
import { DomainError, defineContext, query } from '@banyan/kernel';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { Bus } from './bus.js';
import type { Reply } from './envelope.js';
import { CONTEXT_BEHIND, refusal, unreachable } from './failures.js';
import type { Placement, RemoteTransport } from './placement.js';

/* Reads of a canary over the bus: the candidate may fare as it likes, the caller gets an answer. Time is the spec's. */

const reading = (name: string) =>
  defineContext(name, {
    routes: [],
    queries: {
      who: query({
        input: z.strictObject({}),
        output: z.string(),
        errors: { NOBODY: 'not_found' },
      }),
    },
    commands: {},
    events: {},
    subscribes: [],
  });
const shop = reading('shop');
const mill = reading('mill');

const answer = (output: string): Reply => ({ ok: true, output, meta: {} });
const failure = (code: string, kind: DomainError['kind']): Reply => refusal(new DomainError(code, kind, code));

/** What the candidate of each context does with a read that has to be answered by `until`. */
let behaves: Record<string, (until: number) => Reply | Promise<Reply>>;
let asked: number;
const notHere = () => Promise.reject(new Error('these are about calls'));
const side = (call: RemoteTransport['call']): RemoteTransport => ({
  name: 'fake',
  ...{ call, deliver: notHere, giveBack: notHere },
});
const candidate = side(async ({ context, deadline }, until = deadline) => {
  asked += 1;
  return behaves[context]!(until);
});
const owner = side(async () => answer('owner'));
const canary: Placement = {
  decide: () => ({ at: 'remote', via: candidate, side: 'service', otherwise: { at: 'remote', via: owner } }),
  changed: () => Promise.resolve(),
};

const well = () => answer('candidate');
const hung = (until: number) =>
  new Promise<Reply>((late) => setTimeout(() => late(failure('DEADLINE_EXCEEDED', 'unavailable')), until - Date.now()));

Logger.overrideLogger(false);

let bus: Bus;
const read = (contract = shop) => bus.client(contract).who({});
/** The answer, and how long it took. */
const timed = async (contract = shop) => {
  const from = Date.now();
  return { from: await read(contract), ms: Date.now() - from };
};

beforeEach(() => {
  vi.useFakeTimers();
  bus = new Bus(canary);
  behaves = { shop: well, mill: well };
  asked = 0;
});
afterEach(() => void vi.useRealTimers());

it('a hung candidate costs the first few reads a second, and then no read anything', async () => {
  behaves['shop'] = hung;
  const first = Promise.all(Array.from({ length: 5 }, () => timed()));
  await vi.advanceTimersByTimeAsync(1_000);
  expect(await first).toEqual(Array(5).fill({ from: 'owner', ms: 1_000 }));

  for (let n = 0; n < 1_000; n += 1) {
    expect(await timed()).toEqual({ from: 'owner', ms: 0 });
    await vi.advanceTimersByTimeAsync(10);
  }
  // Tried again about once a second (and each try hangs for one), at nobody's cost.
  expect(asked).toBeGreaterThan(5 + 3);
  expect(asked).toBeLessThanOrEqual(5 + 10);
});

it('a dead candidate is left alone, and read again soon after it is back', async () => {
  behaves['shop'] = () => refusal(unreachable('shop', 'refused'));
  for (let n = 0; n < 100; n += 1) expect(await timed()).toEqual({ from: 'owner', ms: 0 });
  expect(asked).toBe(5);
  expect(await timed(mill)).toEqual({ from: 'candidate', ms: 0 });

  behaves['shop'] = well;
  expect(await read()).toBe('owner');
  await vi.advanceTimersByTimeAsync(1_000);
  expect(await read()).toBe('owner');
  await vi.advanceTimersByTimeAsync(1);
  expect(await read()).toBe('candidate');
});

it('a bug of the candidate is not the answer', async () => {
  behaves['shop'] = () => failure('INTERNAL', 'internal');
  for (let n = 0; n < 10; n += 1) expect(await read()).toBe('owner');
  expect(asked).toBe(5);
});

it('a candidate that is behind is well: it is asked again each time', async () => {
  behaves['shop'] = () => failure(CONTEXT_BEHIND, 'unavailable');
  for (let n = 0; n < 10; n += 1) expect(await read()).toBe('owner');
  expect(asked).toBe(10);
});

it('a refusal is an answer', async () => {
  behaves['shop'] = () => failure('NOBODY', 'not_found');
  for (let n = 0; n < 10; n += 1) await expect(read()).rejects.toMatchObject({ code: 'NOBODY' });
  expect(asked).toBe(10);
});
