import { defineContext, query } from '@banyan/kernel';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { ReadOperations, requiredOperations } from './operations.js';

const thing = query({ input: z.strictObject({ id: z.string() }), output: z.strictObject({}), examples: [{ id: '1' }] });
const shop = defineContext('shop', {
  routes: ['/v1/things'],
  reads: {
    'GET /v1/things/{id}': { query: 'thing', public: true },
    'GET /v1/things/best': { query: 'best' },
    'GET /v1/things/{id}/parts': { query: 'thing' },
  },
  queries: {
    thing: { ...thing, parity: { ignore: ['/asOf'] } },
    best: query({ input: z.strictObject({}), output: z.strictObject({}) }),
  },
  ...{ commands: {}, events: {}, subscribes: [] },
});

describe('A read over HTTP', () => {
  const reads = new ReadOperations([shop]);

  it.each([
    ['/v1/things/7', 'GET /v1/things/{id}'],
    ['/v1/things/7/?x=1', 'GET /v1/things/{id}'],
    ['/v1/things/best', 'GET /v1/things/best'],
    ['/v1/things/7/parts', 'GET /v1/things/{id}/parts'],
    ['/v1/things', 'GET (other)'],
    ['/v1/things/7/parts/8', 'GET (other)'],
  ])('%s of a context with a contract is %s', (path, operation) => {
    expect(reads.operationOf('shop', 'GET', path)).toBe(operation);
    expect(reads.operationOf('shop', 'HEAD', path)).toBe(operation);
  });

  it.each([
    ['/v1/stock/KIT-0001', 'GET /v1/stock/{id}'],
    ['/users/casey@example.com/orders/17?q=a', 'GET /users/{id}/orders/{id}'],
    ['/api/v2/orders/019a0000-0000-7000-8000-000000000001', 'GET /api/v2/orders/{id}'],
    ['/.well-known/jwks.json', 'GET /.well-known/jwks.json'],
    ['/', 'GET /'],
  ])('%s of a context without one is %s', (path, operation) => {
    expect(reads.operationOf('rest', 'GET', path)).toBe(operation);
  });

  it('never has more than a hundred names', () => {
    const word = (n: number) => [...String(n)].map((digit) => 'abcdefghij'[Number(digit)]).join('');
    const names = new Set(Array.from({ length: 1_000 }, (_, n) => reads.operationOf('many', 'GET', `/${word(n)}`)));
    expect(names.size).toBe(101);
  });

  it('has the rules of the query behind it, and those of a configuration file on top; a trace id never counts', () => {
    const rules = reads.rulesOf('GET /v1/things/{id}');
    expect(rules.ignore).toEqual(['/traceId', '/asOf']);
    const own = { ignore: ['/mine'], unordered: ['/items'] };
    expect(reads.rulesOf('GET /v1/things/{id}', own)).toMatchObject({
      ignore: ['/traceId', '/asOf', '/mine'],
      unordered: ['/items'],
    });
    expect(reads.rulesOf('GET /v1/things/{id}', own)).toBe(reads.rulesOf('GET /v1/things/{id}', own));
    expect(reads.rulesOf('GET (other)', own).ignore).toEqual(['/traceId', '/mine']);
    expect(reads.rulesOf('shop.thing').ignore).toEqual(['/asOf']);
  });
});

describe('What has to be seen of a context', () => {
  it('is every query that has examples, and every read without a token', () => {
    expect(requiredOperations(shop)).toEqual(['shop.thing', 'GET /v1/things/{id}']);
  });
});
