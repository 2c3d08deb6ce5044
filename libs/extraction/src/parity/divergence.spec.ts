import { describe, expect, it } from 'vitest';
import type { Difference } from './compare.js';
import { Divergence, Ledger, mergeDivergences } from './divergence.js';

const about = { context: 'orders', operation: 'GET /v1/orders/{id}' };
const changed = (path: string, expected: unknown, actual: unknown): Difference => ({
  kind: 'changed',
  path,
  expected,
  actual,
});

describe('The ledger', () => {
  it('groups by operation, field and kind, whatever the index, and keeps the first samples', () => {
    const ledger = new Ledger();
    for (let n = 0; n < 10; n += 1)
      ledger.enter(about, 'difference', [changed(`/items/${n}/quantity`, n, n + 1), changed('/version', 1, 2)]);
    ledger.enter({ ...about, operation: 'GET /v1/orders' }, 'difference', [changed('/version', 1, 2)]);
    const list = ledger.list();
    expect(list.map(({ path, count }) => [path, count])).toEqual([
      ['/items/*/quantity', 10],
      ['/version', 10],
      ['/version', 1],
    ]);
    expect(list[0]!.samples.map(({ pointer, expected, actual }) => [pointer, expected, actual])).toEqual([
      ['/items/0/quantity', '0', '1'],
      ['/items/1/quantity', '1', '2'],
      ['/items/2/quantity', '2', '3'],
    ]);
    expect(new Set(list.map(({ id }) => id)).size).toBe(3);
    for (const each of list) expect(Divergence.parse(JSON.parse(JSON.stringify(each)))).toEqual(each);
  });

  it('counts an answer once in a group, however many items differ', () => {
    const ledger = new Ledger();
    const ids = ledger.enter(about, 'difference', [changed('/items/0/a', 1, 2), changed('/items/1/a', 1, 2)]);
    expect(ids).toHaveLength(1);
    expect(ledger.list()[0]!.count).toBe(1);
  });

  it('has an end', () => {
    const ledger = new Ledger();
    for (let n = 0; n < 500; n += 1)
      ledger.enter(about, 'difference', [changed(`/field${'x'.repeat(n % 40)}${n}`, 1, 2)]);
    expect(ledger.list().length).toBeLessThanOrEqual(60);
    expect(ledger.overflow).toBeGreaterThan(0);
  });

  it('adds up over instances and stages, with what was acknowledged', () => {
    const [a, b] = [new Ledger(), new Ledger()];
    a.enter(about, 'difference', [changed('/a', 1, 2)], '2026-01-01T00:00:00.000Z');
    b.enter(about, 'difference', [changed('/a', 3, 4)], '2026-01-02T00:00:00.000Z');
    b.enter(about, 'lag', [changed('/b', 3, 4)], '2026-01-02T00:00:00.000Z');
    const [id] = a.list().map((each) => each.id);
    const accepted = { by: 'ops', reason: 'meant so', at: '2026-01-03T00:00:00.000Z' };
    const merged = mergeDivergences([a.list(), b.list()], { [id!]: accepted });
    expect(merged).toMatchObject([
      {
        ...{ id, path: '/a', count: 2, acknowledged: accepted, samples: [{ expected: '1' }, { expected: '3' }] },
        ...{ firstSeen: '2026-01-01T00:00:00.000Z', lastSeen: '2026-01-02T00:00:00.000Z' },
      },
      { path: '/b', verdict: 'lag', acknowledged: null },
    ]);
    expect(mergeDivergences([], { constructor: accepted })).toEqual([]);
  });
});

describe('A sample in the ledger', () => {
  const kept = (path: string, value: unknown, request?: string) => {
    const ledger = new Ledger();
    ledger.enter({ ...about, request }, 'difference', [changed(path, value, undefined)]);
    return JSON.stringify(ledger.list());
  };

  it.each<[string, string, unknown]>([
    ['an e-mail address', '/email', 'casey@example.com'],
    ['an e-mail address in some text', '/note', 'ask casey@example.com'],
    ['an e-mail address as a name of a map', '/users/casey@example.com/age', 7],
    ['a name', '/shippingAddress/name', 'Casey Customer'],
    ['a name in small letters', '/username', 'casey'],
    ['a name in capitals', '/lastName', 'CASEY'],
    ['a city', '/shippingAddress/city', 'Casey'],
    ['a city in an address that is new as a whole', '/shippingAddress', { city: 'Casey', line1: 'Casey Road 1' }],
    ['a name in a list that is new as a whole', '/items', [{ sku: 'KIT-0001', owner: { firstName: 'Casey' } }]],
    ['a free text', '/reason', 'Casey was not at home'],
    ['a free word', '/comment', 'casey'],
    ['a free word in capitals', '/comment', 'CASEY-CASEY'],
    ['a bearer token', '/accessToken', 'eyJhbGciOi.casey.sig'],
    ['a token under another name', '/value', 'eyJhbGciOiJFUzI1NiJ9.casey.casey'],
    ['a provider token', '/method', 'tok_casey'],
    ['a password hash', '/account/passwordHash', '$argon2id$v=19$casey'],
    ['a sealed key', '/keys/0/sealedPrivateJwk', 'caseyCASEY'],
    ['a phone number', '/phone', 491701234567],
  ])('never holds %s', (_, path, value) => {
    expect(kept(path, value)).not.toMatch(/casey|491701234567/i);
  });

  it.each<[string, unknown]>([
    ['a card number as text', '4111 1111 1111 1111'],
    ['a card number', 4111111111111111],
    ['a card number in a field called code', '4111111111111111'],
  ])('never holds %s', (_, value) => {
    // But for the mark of the text, six digits that may be any.
    expect(kept('/code', value).replaceAll(/#[0-9a-f]{6}\b/g, '')).not.toMatch(/4111|1111/);
  });

  it('never holds what was asked for beyond its shape, and no query string', () => {
    const told = kept('/a', 1, '/v1/orders/casey@example.com?q=casey');
    expect(told).not.toMatch(/casey/i);
    expect(told).toContain('/v1/orders/');
    expect(kept('/a', 1, '/v1/orders/019a0000-0000-7000-8000-000000000001')).toContain('019a0000-0000-7000');
    expect(kept('/a', 1, '{"q":"casey","limit":20}')).not.toMatch(/casey/i);
    expect(kept('/a', 1, '{"q":"casey","limit":20}')).toContain('limit');
  });

  it.each<[string, string, unknown]>([
    ['numbers', '/quantity', 12],
    ['booleans', '/open', false],
    ['ids', '/id', '019a0000-0000-7000-8000-000000000001'],
    ['times', '/createdAt', '2026-01-01T10:00:00.000Z'],
    ['codes', '/sku', 'KIT-0001'],
    ['words of an enumeration', '/status', 'confirmed'],
    ['currencies', '/price/currency', 'EUR'],
    ['null', '/note', null],
  ])('does hold %s, so that somebody can see what is wrong', (_, path, value) => {
    const ledger = new Ledger();
    ledger.enter(about, 'difference', [changed(path, value, undefined)]);
    expect(ledger.list()[0]!.samples[0]).toMatchObject({ expected: JSON.stringify(value), actual: null });
  });

  it('shows that two masked texts differ, and how they are built', () => {
    const ledger = new Ledger();
    ledger.enter(about, 'difference', [changed('/reason', 'No one at 5', 'No two at 5')]);
    const { expected, actual } = ledger.list()[0]!.samples[0]!;
    expect(expected).toMatch(/^"Xx xxx xx 9 #[0-9a-f]{6}"$/);
    expect(actual).not.toBe(expected);
  });
});
