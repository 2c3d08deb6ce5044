import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Answer } from './answer.js';
import { compare, compareValues } from './compare.js';
import type { Rules } from './rules.js';

const json = (value: unknown, rest: Partial<Answer> = {}): Answer => ({
  status: 200,
  contentType: 'application/json',
  body: Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)),
  ...rest,
});
const places = (a: unknown, b: unknown, rules?: Rules) =>
  compareValues(a, b, rules).map(({ kind, path }) => `${kind} ${path}`);

describe('Two answers', () => {
  it('that are equal in everything, or only written differently, do not differ', () => {
    expect(compare(json({ a: 1, b: [2] }), json('{ "b": [2.0], "a": 1e0 }'))).toEqual([]);
    expect(compare(json({ a: 1 }), json({ a: 1 }, { contentType: 'application/json; charset=UTF-8' }))).toEqual([]);
    const packed = gzipSync(JSON.stringify({ a: 1 }));
    expect(compare(json({ a: 1 }), { ...json({ a: 1 }), encoding: 'gzip', body: packed })).toEqual([]);
  });

  it('differ in one thing at a time: the status, else the content type, else the body', () => {
    const problem = json({ code: 'X' }, { status: 404, contentType: 'application/problem+json' });
    expect(compare(json({ a: 1 }), problem)).toEqual([{ kind: 'status', path: '', expected: 200, actual: 404 }]);
    expect(compare(json({ a: 1 }), json({ a: 2 }, { contentType: 'text/html' }))).toMatchObject([
      { kind: 'content-type', path: '' },
    ]);
    expect(compare(json({ a: 1 }), json('{"a":1'))).toMatchObject([{ kind: 'body', path: '' }]);
    expect(compare(json({ a: 1 }), json(''))).toMatchObject([{ kind: 'body', actual: { bytes: 0 } }]);
  });

  it('in bytes that nobody can read are compared as bytes', () => {
    const html = (body: string) => ({ status: 200, contentType: 'text/html', body: Buffer.from(body) });
    expect(compare(html('<p>a'), html('<p>a'))).toEqual([]);
    expect(compare(html('<p>a'), html('<p>b'))).toMatchObject([{ kind: 'body' }]);
    const bomb = { ...json(''), encoding: 'gzip', body: gzipSync(Buffer.alloc(32 * 1024 * 1024)) };
    expect(compare(json({ a: 1 }), bomb)).toMatchObject([{ kind: 'body', actual: undefined }]);
    expect(compare(json({ a: 1 }), { ...json('\xff\xfe'), body: Buffer.from([0xff, 0xfe]) })).toMatchObject([
      { kind: 'body' },
    ]);
  });

  it('with whole numbers that a double cannot hold are still told apart', () => {
    const [difference] = compare(json('{"id":9007199254740993}'), json('{"id":9007199254740992}'));
    expect(difference).toMatchObject({ kind: 'changed', path: '/id' });
    expect(compare(json('{"id":9007199254740993}'), json('{ "id": 9007199254740993 }'))).toEqual([]);
  });
});

describe('Two bodies', () => {
  it.each([
    ['a changed value', { a: { b: 1 } }, { a: { b: 2 } }, ['changed /a/b']],
    ['another type', { a: 1 }, { a: '1' }, ['type /a']],
    ['null for a value', { a: 'x' }, { a: null }, ['type /a']],
    ['null for nothing', {}, { a: null }, ['extra /a']],
    ['nothing for null', { a: null }, {}, ['missing /a']],
    ['an empty list for an empty object', { a: [] }, { a: {} }, ['type /a']],
    ['letters in another case', ['Mug'], ['mug'], ['changed /0']],
    ['two ways to write one letter', { a: '\u00e9' }, { a: 'e\u0301' }, ['changed /a']],
    ['names that need escaping', { 'a/b': { '~': 1 } }, { 'a/b': { '~': 2 } }, ['changed /a~1b/~0']],
    ['a name that every object inherits', { toString: 1 }, {}, ['missing /toString']],
    ['a value at the root', 1, 2, ['changed ']],
    ['a list in another order', { l: [{ a: 1 }, { a: 2 }] }, { l: [{ a: 2 }, { a: 1 }] }, ['order /l']],
    ['a list cut off', [1, 2, 3], [1, 2], ['missing /2']],
    ['a list without one in the middle', ['a', 'b', 'c'], ['a', 'c'], ['missing /1']],
    ['a list with one twice', ['a', 'b'], ['a', 'a', 'b'], ['extra /1']],
    ['one changed item', [{ a: 1 }, { a: 2 }], [{ a: 1 }, { a: 3 }], ['changed /1/a']],
    ['one changed and one lost', [{ a: 1 }, { a: 2 }, { a: 4 }], [{ a: 1 }, { a: 3 }], ['changed /1/a', 'missing /2']],
  ])('with %s', (_, a, b, expected) => {
    expect(places(a, b)).toEqual(expected);
  });

  it('differ in at most 50 places, however much is wrong', () => {
    const many = (by: number) => Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`f${i}`, i + by]));
    expect(places(many(0), many(1))).toHaveLength(50);
  });

  it('that nest too deeply are a difference, not a crash', () => {
    const deep = (leaf: number) => JSON.parse('['.repeat(5_000) + leaf + ']'.repeat(5_000)) as unknown;
    expect(compareValues(deep(1), deep(2))).toMatchObject([{ kind: 'body' }]);
  });

  it('any JSON is equal to its copy, and any one changed leaf is found where it is', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
        expect(places(value, structuredClone(value))).toEqual([]);
      }),
      { numRuns: 1_000 },
    );
    const leaves = (value: unknown, path: (string | number)[] = []): (string | number)[][] =>
      typeof value === 'object' && value !== null
        ? Object.entries(value).flatMap(([key, each]) => leaves(each, [...path, key]))
        : [path];
    fc.assert(
      fc.property(fc.object({ maxDepth: 4 }), fc.nat(), (value, n) => {
        const a = JSON.parse(JSON.stringify(value)) as Record<string, unknown>;
        const all = leaves(a);
        if (all.length === 0) return;
        const path = all[n % all.length]!;
        const b = structuredClone(a);
        let at = b as Record<string | number, unknown>;
        for (const part of path.slice(0, -1)) at = at[part] as typeof at;
        at[path.at(-1)!] = 'another value';
        if (JSON.stringify(a) !== JSON.stringify(b)) expect(compareValues(a, b).length).toBeGreaterThan(0);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('Rules', () => {
  const a = {
    at: '2026-01-01T00:00:00.000Z',
    n: 10,
    items: [
      { id: 1, seen: 'x' },
      { id: 2, seen: 'y' },
    ],
  };

  it('leave places out, with `*` for any name or index', () => {
    const b = { ...a, n: 11, items: [{ id: 1, seen: 'p' }, { id: 2 }] };
    expect(places(a, b, { ignore: ['/n', '/items/*/seen'] })).toEqual([]);
    expect(places(a, b, { ignore: ['/n', '/items/0/seen'] })).toEqual(['missing /items/1/seen']);
    expect(places(a, { ...b, more: 1 }, { ignore: ['/*'] })).toEqual([]);
  });

  it('let lists be unordered: compared by value, what is left out having no say', () => {
    const rules = { unordered: ['/items'], ignore: ['/items/*/seen'] };
    const b = {
      ...a,
      items: [
        { id: 2, seen: 'p' },
        { id: 1, seen: 'q' },
      ],
    };
    expect(places(a, b, rules)).toEqual([]);
    expect(places(a, b, { unordered: ['/items'] })).toEqual([
      'changed /items/0/id',
      'changed /items/0/seen',
      'changed /items/1/id',
      'changed /items/1/seen',
    ]);
    expect(places(a, { ...b, items: [{ id: 2 }, { id: 3 }] }, rules)).toEqual(['changed /items/0/id']);
    expect(places(a, { ...b, items: [{ id: 2 }] }, rules)).toEqual(['missing /items/0']);
  });

  it('tolerate numbers and times that are near, and no others', () => {
    const rules = { numbers: { '/n': 1 }, times: { '/at': 1_000 } };
    expect(places(a, { ...a, n: 11, at: '2026-01-01T00:00:01.000Z' }, rules)).toEqual([]);
    expect(places(a, { ...a, n: 12, at: '2026-01-01T00:00:01.001Z' }, rules)).toEqual(['changed /at', 'changed /n']);
    expect(places(a, { ...a, n: '10', at: 'soon' }, rules)).toEqual(['changed /at', 'type /n']);
    const list = { numbers: { '/*/n': 1 }, unordered: [] };
    expect(
      places(
        [
          { id: 1, n: 5 },
          { id: 2, n: 5 },
        ],
        [
          { id: 1, n: 6 },
          { id: 2, n: 9 },
        ],
        list,
      ),
    ).toEqual(['changed /1/n']);
  });
});
