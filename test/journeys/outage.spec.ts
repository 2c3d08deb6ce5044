import { setTimeout as pause } from 'node:timers/promises';
import { newId } from '@banyan/kernel';
import { type InternalServer, readiness, startInternalServer } from '@banyan/platform/telemetry';
import { contextNames, eventually } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { everythingAddsUp } from '../shop/invariants.js';
import { openShop, placements } from '../shop/shop.js';
import { Wire } from '../shop/wire.js';

describe.each(placements)('While Postgres is gone, %s', (placement) => {
  let wire: Wire;
  let internal: InternalServer;
  const shop = openShop({
    placement,
    databaseUrl: async (url) => {
      wire = await Wire.to(url);
      return wire.through(url);
    },
    settings: { BANYAN_CARRIER_DISPATCH_MS: '50', BANYAN_CARRIER_DELIVERY_MS: '50' },
  });
  beforeAll(async () => {
    internal = await startInternalServer({ port: 0 });
    readiness.open();
  });
  afterAll(async () => {
    await internal.close();
    await wire.cut();
  });
  const patient = { timeoutMs: 20_000 };
  const probe = async (path: string) => (await fetch(`http://127.0.0.1:${internal.port}${path}`)).status;

  it(
    'every answer is a 503 that says when to come back; the app stays alive and recovers alone',
    { timeout: 90_000 },
    async () => {
      const sku = await shop.offer();
      const buyer = await shop.guest();
      await buyer.putInCart(sku);
      await eventually(async () => (await probe('/readyz')) === 200, patient);

      await wire.cut();
      const refused = [
        await shop.stranger().get('/v1/products'),
        await shop.stranger().get(`/v1/stock/${sku}`),
        await buyer.get('/v1/cart'),
        await buyer.order(),
        await shop.stranger().post('/v1/auth/login', { email: 'a@example.com', password: 'correct horse' }),
      ];
      for (const answer of refused) {
        expect(answer.problem(503)).toBe('DATABASE_UNAVAILABLE');
        expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
      }
      expect(await probe('/readyz')).toBe(503);
      expect(await probe('/livez')).toBe(200);
      // What needs no database is answered as ever: forged tokens are no reason for a 503.
      expect((await shop.stranger().get('/v1/cart')).problem(401)).toBe('UNAUTHENTICATED');

      await wire.mend();
      await eventually(async () => (await probe('/readyz')) === 200, patient);
      await eventually(async () => (await buyer.get('/v1/cart')).status === 200, patient);
      const key = newId();
      const { body } = await eventually(async () => (await buyer.order('tok_ok', key)).expect(201), patient);
      // The carrier's round that was cut off is given up after a while, and the next one waits for that.
      await eventually(async () => (await buyer.see(body.id)).status === 'delivered', { timeoutMs: 60_000 });
    },
  );

  it('nothing is lost and nothing happens twice, whenever it goes', { timeout: 120_000 }, async () => {
    const sku = await shop.offer({ onHand: 60 });
    const placed = Array.from({ length: 60 }, async (_, i) => {
      const buyer = await shop.guest();
      const key = newId();
      const patiently = async (ask: () => Promise<{ status: number }>) => {
        for (;;) {
          const answer = await ask();
          if (answer.status < 300) return answer as Awaited<ReturnType<typeof buyer.order>>;
          // 503: it was not done, or nobody knows; 409 with the key: it is being done. The same key makes both safe.
          expect([503, 409]).toContain(answer.status);
          await pause(50);
        }
      };
      await pause(i * 40);
      await patiently(() => buyer.put(`/v1/cart/items/${sku}`, { quantity: 1 }));
      return { buyer, id: (await patiently(() => buyer.order('tok_ok', key))).body.id as string };
    });
    for (let times = 0; times < 4; times++) {
      await pause(350);
      await wire.cut();
      await pause(250);
      await wire.mend();
    }
    const orders = await Promise.all(placed);
    expect(new Set(orders.map(({ id }) => id)).size).toBe(60);
    // What was cut off is taken up again when its lease is over.
    const unfinished = [
      `select 'orders', status from orders.orders where status <> 'delivered'`,
      `select 'sagas', state from orders.saga where state not in ('completed', 'compensated', 'cancelled')`,
      ...contextNames.map((context) => `select '${context}', state from ${context}.outbox where state <> 'done'`),
    ];
    await eventually(async () => expect(await shop.sql(unfinished.join(' union all '))).toEqual([]) ?? true, {
      timeoutMs: 60_000,
      intervalMs: 200,
    });
    const [count] = await shop.sql('select count(*)::int as n from orders.orders');
    expect(count).toEqual({ n: 61 });
    await everythingAddsUp(shop);
    expect(await shop.shelf(sku)).toEqual({ onHand: 0, reserved: 0, available: 0 });
  });
});
