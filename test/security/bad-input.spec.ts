import { newId } from '@banyan/kernel';
import { beforeAll, describe, expect, it } from 'vitest';
import { everythingAddsUp } from '../shop/invariants.js';
import { openShop } from '../shop/shop.js';
import { type Answer, type Visitor, address } from '../shop/visitor.js';
import { aim, fingerprint, routesIn } from './routes.js';

const shop = openShop();
const json = { 'content-type': 'application/json' };

interface Asked {
  as: 'stranger' | 'customer' | 'staff';
  /** A body that would be taken. */
  good: Record<string, unknown>;
  fill?: Record<string, string>;
  headers?: Record<string, string>;
}

let who: Record<Asked['as'], Visitor>;
const ids: Record<string, string> = {};

/** Every route that takes JSON from somebody, with a body that would be taken. */
const taking: Record<string, () => Asked> = {
  'POST /v1/auth/register': () => ({
    as: 'stranger',
    good: { email: `${newId()}@example.com`, password: 'correct horse battery', name: 'Ann' },
  }),
  'POST /v1/auth/login': () => ({ as: 'stranger', good: { email: 'nobody@example.com', password: 'wrong horse' } }),
  'POST /v1/auth/refresh': () => ({ as: 'stranger', good: { refreshToken: 'unknown' } }),
  'POST /v1/auth/logout': () => ({ as: 'stranger', good: { refreshToken: 'unknown' } }),
  'POST /v1/products': () => ({
    as: 'staff',
    good: { sku: `SKU-${newId()}`, name: 'A', description: 'B', category: 'C', price: { amount: 1, currency: 'EUR' } },
  }),
  'PATCH /v1/products/:id': () => ({
    as: 'staff',
    good: { name: 'A', description: 'B', category: 'C', price: { amount: 1, currency: 'EUR' } },
    fill: { id: ids.product! },
    headers: { 'if-match': '"1"' },
  }),
  'PUT /v1/stock/:sku': () => ({ as: 'staff', good: { onHand: 10 }, fill: { sku: ids.sku! } }),
  'PUT /v1/cart/items/:sku': () => ({ as: 'customer', good: { quantity: 1 }, fill: { sku: ids.sku! } }),
  'POST /v1/orders': () => ({
    as: 'customer',
    good: { shippingAddress: { ...address, line2: 'Flat 2' }, paymentMethod: 'tok_ok' },
    headers: { 'idempotency-key': newId() },
  }),
  'POST /v1/payments/:id/refunds': () => ({
    as: 'staff',
    good: { amount: { amount: 1, currency: 'EUR' }, reason: 'broken' },
    fill: { id: ids.payment! },
    headers: { 'idempotency-key': newId() },
  }),
};

/** Those that read something else: NDJSON line by line, bytes under a signature, or nothing. */
const others = [
  'POST /v1/products/import',
  'POST /v1/webhooks/psp',
  'POST /v1/webhooks/carrier',
  'POST /v1/orders/:id/cancel',
];

const routes = Object.keys(taking);

beforeAll(async () => {
  who = { stranger: shop.stranger(), customer: await shop.customer(), staff: await shop.staff() };
  ids.sku = await shop.offer();
  ids.product = (await who.stranger.get(`/v1/products?q=${ids.sku}`)).body.items[0].id;
  ids.order = await who.customer.buy(ids.sku);
  await shop.ship(who.customer, ids.order);
  ids.payment = (await who.customer.until(ids.order, ({ payment }) => payment.status === 'captured')).payment.id;
  await who.customer.putInCart(ids.sku, 2);
  await everythingAddsUp(shop);
});

function send(
  route: string,
  body: string | Buffer | undefined,
  headers: Record<string, string> = json,
): Promise<Answer> {
  const asked = taking[route]!();
  const { method, path } = aim(route, asked.fill);
  return who[asked.as].send(method, path, body, { ...asked.headers, ...headers });
}

/** Runs it and proves that not one row has changed. */
async function unchanged(work: () => Promise<void>): Promise<void> {
  const before = await fingerprint(shop);
  await work();
  expect(await fingerprint(shop)).toEqual(before);
}

/** Every way to the leaves and the branches of a body. */
function* placesIn(value: unknown, path: string[] = []): Generator<string[]> {
  if (path.length > 0) yield path;
  if (typeof value === 'object' && value !== null)
    for (const [key, inner] of Object.entries(value)) yield* placesIn(inner, [...path, key]);
}

function replaced(body: Record<string, unknown>, path: readonly string[], value: unknown): Record<string, unknown> {
  const copy = structuredClone(body);
  let at = copy;
  for (const key of path.slice(0, -1)) at = at[key] as Record<string, unknown>;
  at[path.at(-1)!] = value;
  return copy;
}

const at = (body: Record<string, unknown>, path: readonly string[]): unknown =>
  path.reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], body);

it('every route of the app that takes a body is looked at', () => {
  const writing = routesIn(shop).filter((route) => /^(POST|PUT|PATCH) /.test(route));
  expect(writing.sort()).toEqual([...routes, ...others].sort());
});

describe.each(routes)('%s', (route) => {
  it('refuses wrong types and unknown fields everywhere in the body, says where, and changes nothing', async () => {
    const { good } = taking[route]!();
    await unchanged(async () => {
      for (const path of placesIn(good)) {
        const text = typeof at(good, path) === 'string';
        const wrong = [{ not: '' }, { $ne: null }, [], [''], true, null, ...(text ? [1, {}] : ['1', 1.5, -1, 1e300])];
        for (const value of wrong) {
          const answer = await send(route, JSON.stringify(replaced(good, path, value)));
          const what = `${route} with ${path.join('.')} = ${JSON.stringify(value)}`;
          expect(answer.problem(400), what).toBe('INPUT_INVALID');
          const pointers = answer.body.errors.map(({ pointer }: { pointer: string }) => pointer);
          expect(
            pointers.some((pointer: string) => pointer.startsWith(`/${path.join('/')}`)),
            what,
          ).toBe(true);
        }
      }
      for (const path of [
        ['extra'],
        ...[...placesIn(good)].filter((each) => typeof at(good, each) === 'object').map((each) => [...each, 'extra']),
      ]) {
        const answer = await send(route, JSON.stringify(replaced(good, path, 1)));
        expect(answer.problem(400)).toBe('INPUT_INVALID');
        expect(answer.body.errors).toContainEqual({ pointer: `/${path.join('/')}`, detail: 'is not a known field' });
      }
    });
  });

  it('refuses text that no database can hold, or that has no end: never a 500', async () => {
    const { good } = taking[route]!();
    await unchanged(async () => {
      for (const path of placesIn(good)) {
        if (typeof at(good, path) !== 'string') continue;
        const whole = String(at(good, path));
        for (const value of ['\ud800', `${whole}\udfff`, `\ud800${whole}`, '\0', `${whole}\0`, 'x'.repeat(100_000)]) {
          // JSON.stringify writes a lone surrogate as an escape, as an attacker would.
          (await send(route, JSON.stringify(replaced(good, path, value)))).problem(400);
        }
      }
      // As a field’s name, too.
      for (const key of ['\ud800', '\0', '__proto__', 'constructor'])
        (await send(route, `{${JSON.stringify(key)}: {"prototype": 1}, ${JSON.stringify(good).slice(1)}`)).problem(400);
    });
  });

  it('refuses what is not JSON, too deep, too large, of another type or compressed, and changes nothing', async () => {
    const good = JSON.stringify(taking[route]!().good);
    await unchanged(async () => {
      for (const body of ['', '{', `${good}}`, 'null', '[]', '"text"', '1', `[${good}]`, "{'a': 1}", '\ufeff{', 'NaN'])
        expect((await send(route, body)).problem(400), body).toMatch(/^(MALFORMED_JSON|INPUT_INVALID)$/);
      expect((await send(route, Buffer.from([0xff, 0xfe, 0x7b]))).problem(400)).toBe('MALFORMED_JSON');
      const deep = `{"a":${'['.repeat(10_000)}${']'.repeat(10_000)}}`;
      expect((await send(route, deep)).problem(400)).toBe('JSON_TOO_DEEP');
      expect((await send(route, `${good.slice(0, -1)},"pad":"${'x'.repeat(1_100_000)}"}`)).problem(413)).toBe(
        'BODY_TOO_LARGE',
      );
      for (const type of ['text/plain', 'application/xml', 'multipart/form-data', 'application/x-www-form-urlencoded'])
        expect((await send(route, good, { 'content-type': type })).problem(415)).toBe('UNSUPPORTED_MEDIA_TYPE');
      expect((await send(route, good, { ...json, 'content-encoding': 'gzip' })).problem(415)).toBe(
        'UNSUPPORTED_ENCODING',
      );
    });
  });
});

describe('A path', () => {
  it('with a method it does not answer is a 405 that says which it does', async () => {
    await unchanged(async () => {
      const patterns = new Map<string, Set<string>>();
      for (const route of routesIn(shop)) {
        const [method, pattern] = route.split(' ') as [string, string];
        patterns.set(pattern, (patterns.get(pattern) ?? new Set()).add(method));
      }
      for (const [pattern, methods] of patterns) {
        // Another route may match the same path: /v1/products/import is also /v1/products/:id.
        const wrong = (['PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS'] as const).filter((method) => {
          const matches = [...patterns].filter(
            ([other]) => pattern === other || (pattern.endsWith('/import') && other === '/v1/products/:id'),
          );
          return !matches.some(([, known]) => known.has(method));
        });
        for (const method of wrong) {
          const { path } = aim(`${method} ${pattern}`);
          const answer = await who.staff.send(method, path);
          expect(answer.problem(405), `${method} ${path}`).toBe('METHOD_NOT_ALLOWED');
          for (const allowed of methods) expect(answer.headers.allow).toContain(allowed);
        }
      }
    });
  });

  it('with an id that is none, or a SKU that is none, is a 400; one that nobody has is a 404', async () => {
    await unchanged(async () => {
      for (const route of routesIn(shop).filter((each) => each.includes(':'))) {
        const asked = taking[route]?.();
        const body = asked && JSON.stringify(asked.good);
        const visitor = asked ? who[asked.as] : who.customer;
        const ask = (value: string) => {
          const { method, path } = aim(route, { id: value, sku: value });
          return visitor.send(method, path, body, { ...asked?.headers, ...(body === undefined ? {} : json) });
        };
        for (const value of [
          '%20',
          '1%27%20or%201=1',
          '%F0%9F%92%A5',
          '..%2f',
          'undefined%00',
          '-',
          'x'.repeat(200),
          '%ED%A0%80',
          '%',
        ]) {
          const answer = await ask(value);
          expect([400, 404], `${route} ${value}: ${answer.text}`).toContain(answer.status);
          answer.problem(answer.status);
        }
        expect((await ask('x'.repeat(300))).problem(414), route).toBe('URI_TOO_LONG');
      }
      for (const path of ['/', '/v1', '/v1/nothing', '/v1/orders/1/2/3', '/admin', '/.env', '/v1/messages'])
        expect((await who.staff.get(path)).problem(404), path).toBe('ROUTE_NOT_FOUND');
    });
  });

  it('with a bad query is a 400', async () => {
    await unchanged(async () => {
      for (const query of [
        'limit=x',
        'limit=0',
        'limit=101',
        'limit=1&limit=2',
        'cursor=',
        'sort=name',
        'cursor[]=1',
        'limit[not]=1',
      ])
        expect((await who.customer.get(`/v1/orders?${query}`)).problem(400), query).toMatch(/INVALID/);
      for (const q of [
        '%ED%A0%80',
        "'",
        '%22',
        '%26%7C!',
        '%3A*',
        '%5C',
        '%F0%9F%92%A5',
        '-',
        '%25',
        '(((',
        'a%20-%20%22',
      ])
        (await who.stranger.get(`/v1/products?q=${q}`)).expect(200, 400);
      expect((await who.stranger.get('/v1/products?q=%00')).problem(400)).toBe('MALFORMED_REQUEST');
      (await who.stranger.get(`/v1/products?q=${'x'.repeat(201)}`)).problem(400);
      (await who.stranger.get('/v1/products?q[not]=')).problem(400);
    });
  });
});

describe('What reads something else than JSON', () => {
  it('the import refuses another type, and endless or binary lines', async () => {
    const path = '/v1/products/import';
    const ndjson = { 'content-type': 'application/x-ndjson' };
    await unchanged(async () => {
      expect((await who.staff.post(path, [{}])).problem(415)).toBe('UNSUPPORTED_MEDIA_TYPE');
      expect((await who.staff.send('POST', path)).problem(415)).toBe('UNSUPPORTED_MEDIA_TYPE');
      const endless = await who.staff.send('POST', path, 'x'.repeat(200_000), ndjson);
      expect(endless.problem(413)).toBe('BODY_TOO_LARGE');
      const lines = ['\ud800', '\0', { not: '' }].map((name) =>
        JSON.stringify({ ...taking['POST /v1/products']!().good, name }),
      );
      const { body } = (await who.staff.send('POST', path, lines.join('\n'), ndjson)).expect(200);
      expect(body).toMatchObject({ created: 0, updated: 0, failed: 3 });
    });
  });

  it('a webhook refuses broken bytes before and after the signature', async () => {
    await unchanged(async () => {
      for (const path of ['/v1/webhooks/psp', '/v1/webhooks/carrier']) {
        for (const body of ['', '{', 'null'])
          expect([400, 401], `${path} ${body}`).toContain((await who.stranger.send('POST', path, body, json)).status);
        expect((await who.stranger.send('POST', path, 'x', { 'content-type': 'text/plain' })).problem(415)).toBe(
          'UNSUPPORTED_MEDIA_TYPE',
        );
      }
      const carrier = await shop.carrierSays('\ud800', 'dispatched');
      expect(carrier.problem(400)).toMatch(/INVALID|MALFORMED/);
      (await shop.providerSays({ eventId: '\0', type: 'payment.authorised', providerRef: 'x' })).problem(400);
      (await shop.providerSays({ eventId: newId(), type: 'payment.declined', providerRef: '\udc00' })).problem(400);
    });
  });

  it('a cancellation takes no body that matters', async () => {
    await unchanged(async () => {
      const answer = await who.customer.send('POST', `/v1/orders/${ids.order}/cancel`, '{', json);
      answer.problem(400);
      const other = await who.customer.cancel('not-an-id');
      expect(other.problem(400)).toBe('INPUT_INVALID');
    });
  });
});

describe('Numbers', () => {
  it('that are too large to add up are refused, not wrapped round', async () => {
    const dear = await shop.offer({ amount: Number.MAX_SAFE_INTEGER });
    const buyer = await shop.guest();
    const answer = await buyer.put(`/v1/cart/items/${dear}`, { quantity: 1_000 });
    expect(answer.status, answer.text).toBeLessThan(500);
    const one = await buyer.put(`/v1/cart/items/${dear}`, { quantity: 1 });
    expect(one.status, one.text).toBeLessThan(500);
    const more = await buyer.put(`/v1/cart/items/${ids.sku}`, { quantity: 1 });
    expect(more.status, more.text).toBeLessThan(500);
    expect((await buyer.get('/v1/cart')).status).toBe(200);
  });
});
