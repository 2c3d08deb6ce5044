import { expect, it } from 'vitest';
import type { Queryable } from './connection.js';
import { streamState } from './state.js';

interface Looks {
  marks: number[];
  confirmed: number;
  now: number;
  /** What the slot feeds. */
  feeds?: (string | null)[];
}

/** Answers as both databases would, with what stands there at each look. */
async function seen({ marks, confirmed, now, feeds = [null] }: Looks) {
  const looks = [...marks];
  const fed = [...feeds];
  const answers = (rows: (text: string) => object[]) =>
    ({ query: (text: string) => Promise.resolve({ rows: rows(text) }) }) as unknown as Queryable;
  const target = answers((text) => {
    if (text.includes('to_regclass')) return [{ is: true }];
    const lsn = String(looks.length > 1 ? looks.shift() : looks[0]);
    return [{ lsn, behindMs: '0', problem: null, log: null, loss: null, tables: [], rereads: false }];
  });
  const slot = { active: true, pid: 1, status: 'reserved', retained: '0', keep: '-1' };
  const source = answers(() => {
    const feeds = fed.length > 1 ? fed.shift() : fed[0];
    return [{ ...slot, now: String(now), published: true, feeds, confirmed: String(confirmed) }];
  });
  const stream = { name: 's', source: 'postgres://a', target: 'postgres://b', schema: 'inventory' };
  return streamState(stream, { source, target });
}

it('a stream that moves on between the look at its mark and the look at its slot is not lost', async () => {
  expect(await seen({ marks: [10, 20], confirmed: 20, now: 20 })).toMatchObject({ state: 'streaming', reason: null });
  // By the second look it may even be past what the source's log held at the first.
  expect(await seen({ marks: [10, 40], confirmed: 20, now: 30 })).toMatchObject({ state: 'streaming', reason: null });
});

it('a slot that stays ahead of the mark is a loss', async () => {
  expect(await seen({ marks: [10], confirmed: 20, now: 30 })).toMatchObject({
    state: 'lost',
    reason: expect.stringContaining('after the mark'),
  });
  expect(await seen({ marks: [40], confirmed: 20, now: 30 })).toMatchObject({
    state: 'lost',
    reason: expect.stringContaining('before the mark'),
  });
});

it('a slot ahead of the mark is none when it feeds a log, even if that was noted between two looks', async () => {
  const ahead = { marks: [10], confirmed: 20, now: 30 };
  expect(await seen({ ...ahead, feeds: ['log'] })).toMatchObject({ state: 'streaming', reason: null });
  expect(await seen({ ...ahead, feeds: [null, 'log'] })).toMatchObject({ state: 'streaming', reason: null });
});
