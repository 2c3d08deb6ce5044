import { expect, it } from 'vitest';
import type { Queryable } from './connection.js';
import { streamState } from './state.js';

/** Answers as both databases would, with the mark that stands at each look. */
async function seen({ marks, confirmed, now }: { marks: number[]; confirmed: number; now: number }) {
  const looks = [...marks];
  const answers = (rows: (text: string) => object[]) =>
    ({ query: (text: string) => Promise.resolve({ rows: rows(text) }) }) as unknown as Queryable;
  const target = answers((text) => {
    if (text.includes('to_regclass')) return [{ is: true }];
    const lsn = String(looks.length > 1 ? looks.shift() : looks[0]);
    return [{ lsn, behindMs: '0', problem: null, log: null, loss: null, tables: [], rereads: false }];
  });
  const slot = { active: true, pid: 1, status: 'reserved', retained: '0', keep: '-1' };
  const source = answers(() => [{ ...slot, now: String(now), published: true, confirmed: String(confirmed) }]);
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
