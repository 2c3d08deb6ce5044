import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { type Handler, TwoSides, sendJson } from './two-sides.js';

/** A page of orders, as a shop answers it. */
const page = () => ({
  items: [
    { id: 'a1', name: 'Küche', quantity: 3, price: { amount: 1299, currency: 'EUR' }, note: null, tags: ['x', 'y'] },
    { id: 'b2', name: 'Mug', quantity: 1, price: { amount: 990, currency: 'EUR' }, note: 'gift', tags: [] },
    { id: 'c3', name: 'Plate', quantity: 12, price: { amount: 1600, currency: 'EUR' }, note: '', tags: ['z'] },
  ],
  nextCursor: 'WzEyXQ.abcdefgh' as string | null,
  total: { amount: 3889, currency: 'EUR' },
  open: true,
});
type Page = ReturnType<typeof page>;

const owner: Handler = (_, res) => sendJson(res, page());
const body =
  (spoil: (page: Page) => unknown): Handler =>
  (_, res) => {
    const spoilt = page();
    sendJson(res, spoil(spoilt) ?? spoilt);
  };
/* eslint-disable @typescript-eslint/no-explicit-any */
const set = (spoil: (page: any) => void): Handler => body((spoilt) => void spoil(spoilt));
/* eslint-enable @typescript-eslint/no-explicit-any */
const raw =
  (text: string, type: string | undefined = 'application/json', status = 200): Handler =>
  (_, res) => {
    if (type) res.setHeader('content-type', type);
    res.writeHead(status).end(text);
  };
const late =
  (ms: number): Handler =>
  (req, res) =>
    void sleep(ms).then(() => owner(req, res));

/** So long an answer is waited for where it is only by its silence that a fault can be told, ms. */
const SILENCE = 200;

/** Wrong candidates, and how each of them has to be told of: the kind, and the place. */
const faults: [string, Handler, string, number?][] = [
  ['a wrong field', set((p) => (p.items[1].name = 'Cup')), 'changed /items/*/name'],
  ['a missing field', set((p) => delete p.items[2].note), 'missing /items/*/note'],
  ['an extra field', set((p) => (p.items[0].colour = 'red')), 'extra /items/*/colour'],
  ['the wrong order', set((p) => p.items.reverse()), 'order /items'],
  ['the wrong order inside an item', set((p) => p.items[0].tags.reverse()), 'order /items/*/tags'],
  ['another status that means success', raw(JSON.stringify(page()), undefined, 203), 'status '],
  ['404 instead of 200', raw('{"code":"NOT_FOUND"}', 'application/problem+json', 404), 'status '],
  ['a redirect', raw('', undefined, 302), 'status '],
  ['a number as text', set((p) => (p.items[0].quantity = '3')), 'type /items/*/quantity'],
  ['a number off by one', set((p) => (p.total.amount += 1)), 'changed /total/amount'],
  ['null for a value', set((p) => (p.items[1].note = null)), 'type /items/*/note'],
  ['nothing for null', set((p) => delete p.items[0].note), 'missing /items/*/note'],
  ['an empty text for null', set((p) => (p.items[0].note = '')), 'type /items/*/note'],
  ['letters in another case', set((p) => (p.items[1].name = 'MUG')), 'changed /items/*/name'],
  ['a space at the end', set((p) => (p.items[1].name = 'Mug ')), 'changed /items/*/name'],
  ['a list cut off', set((p) => p.items.pop()), 'missing /items/*'],
  ['an item twice', set((p) => p.items.splice(1, 0, p.items[0])), 'extra /items/*'],
  ['an item too few in the middle', set((p) => p.items.splice(1, 1)), 'missing /items/*'],
  ['a wrong content type', raw(JSON.stringify(page()), 'text/plain'), 'content-type '],
  ['no content type', raw(JSON.stringify(page()), ''), 'content-type '],
  ['JSON that is cut off', raw(JSON.stringify(page()).slice(0, -2)), 'body '],
  ['an empty body', raw(''), 'body '],
  ['a wrong cursor', set((p) => (p.nextCursor = 'WzEzXQ.abcdefgh')), 'changed /nextCursor'],
  ['no next page', set((p) => (p.nextCursor = null)), 'type /nextCursor'],
  ['another currency deep inside', set((p) => (p.items[2].price.currency = 'USD')), 'changed /items/*/price/currency'],
  ['a letter made of two', set((p) => (p.items[0].name = 'Ku\u0308che')), 'changed /items/*/name'],
  ['true for false', set((p) => (p.open = false)), 'changed /open'],
  ['a list for an object', set((p) => (p.total = [3889])), 'type /total'],
  ['the items without their page', body((p) => p.items), 'type '],
  ['an answer that is stale for good', set((p) => (p.items[1].quantity = 0)), 'changed /items/*/quantity'],
  ['500', raw('{"code":"INTERNAL"}', 'application/problem+json', 500), 'error '],
  ['503', raw('', undefined, 503), 'error '],
  ['an answer that comes too late', late(1_000), 'error ', SILENCE],
  ['no answer at all', () => {}, 'error ', SILENCE],
  ['half an answer, and then silence', (_, res) => void res.writeHead(200).write('{"items":['), 'error ', SILENCE],
  [
    'a connection that breaks in the middle',
    (_, res) => {
      res.writeHead(200, { 'content-type': 'application/json', 'content-length': 5_000 });
      res.write('{"items":[', () => res.socket?.resetAndDestroy());
    },
    'error ',
  ],
  ['a connection that breaks at once', (_, res) => void res.socket?.destroy(), 'error '],
  ['an answer without end', (_, res) => void res.writeHead(200).write(Buffer.alloc(2_000_000, 32)), 'error '],
];

describe('A candidate that answers', () => {
  let sides: TwoSides;
  afterEach(() => sides.stop());

  it.each(faults)('with %s is told of, with its place', async (_, candidate, expected, timeoutMs = 20_000) => {
    sides = await TwoSides.start(owner, candidate, { timeoutMs, againAfterMs: [5, 10, 20] });
    const verdict = expected === 'error ' ? 'error' : 'difference';
    expect(await sides.serve()).toMatchObject({ verdict });
    expect(sides.counts).toMatchObject({ match: 0, lag: 0, noise: 0, dropped: 0, [verdict]: 1 });
    expect(sides.divergences.map(({ kind, path }) => `${kind} ${path}`)).toContain(expected);
    if (expected === 'content-type ') expect(sides.divergences[0]?.samples[0]?.expected).toBe('"application/json"');
    expect(sides.divergences.every(({ count, samples }) => count === 1 && samples.length === 1)).toBe(true);
  });

  it('from a process that is gone is told of', async () => {
    sides = await TwoSides.start(owner, owner, { timeoutMs: 20_000 });
    await sides.kill('service');
    expect(await sides.serve()).toMatchObject({ verdict: 'error' });
    expect(sides.divergences[0]?.samples[0]?.actual).toBe('"ECONNREFUSED"');
  });

  it('rightly is not', async () => {
    sides = await TwoSides.start(owner, late(20), { timeoutMs: 20_000 });
    expect(await sides.serve()).toEqual({ verdict: 'match', differences: [], twice: false, unlike: false });
    expect(sides.divergences).toEqual([]);
  });
});
