import { eventually } from '@banyan/testing';
import { describe, expect, it } from 'vitest';
import { everythingAddsUp } from '../shop/invariants.js';
import { openShop, placements } from '../shop/shop.js';

describe.each(placements)('Buyers who want the same, %s', (placement) => {
  // Many wait for a connection at once here.
  const shop = openShop({ placement, settings: { BANYAN_DB_CONNECT_TIMEOUT_MS: '20000' } });

  it('500 buyers on 50 units: exactly 50 sold', { timeout: 120_000 }, async () => {
    const sku = await shop.offer({ onHand: 50 });
    const buyers = await Promise.all(Array.from({ length: 500 }, () => shop.guest()));
    await Promise.all(buyers.map((buyer) => buyer.putInCart(sku)));

    const ids = await Promise.all(buyers.map(async (buyer) => (await buyer.order()).expect(201).body.id as string));
    expect(new Set(ids).size).toBe(500);
    await eventually(
      async () => (await shop.sql(`select 1 from orders.orders where status = 'pending' limit 1`)).length === 0,
      { timeoutMs: 90_000, intervalMs: 200 },
    );
    const orders = await Promise.all(buyers.map((buyer, i) => buyer.see(ids[i]!)));
    const sold = orders.filter(({ status }) => status === 'confirmed');
    const refused = orders.filter(({ status, reason }) => status === 'rejected' && reason === 'OUT_OF_STOCK');
    expect([sold.length, refused.length]).toEqual([50, 450]);

    await everythingAddsUp(shop);
    expect(await shop.shelf(sku)).toEqual({ onHand: 0, reserved: 0, available: 0 });
    expect((await shop.psp.stats()).authorisations).toBe(50);
  });

  it(
    'of two products in opposite order neither wait for each other nor sell one too many',
    { timeout: 60_000 },
    async () => {
      const [one, two] = [await shop.offer({ onHand: 20 }), await shop.offer({ onHand: 20 })];
      const buyers = await Promise.all(Array.from({ length: 60 }, () => shop.guest()));
      const ids = await Promise.all(
        buyers.map(async (buyer, i) => {
          for (const sku of i % 2 ? [one, two] : [two, one]) await buyer.putInCart(sku);
          return (await buyer.order()).expect(201).body.id as string;
        }),
      );
      const decided = await Promise.all(
        buyers.map((buyer, i) => buyer.until(ids[i]!, ({ status }) => status !== 'pending')),
      );
      expect(decided.filter(({ status }) => status === 'confirmed')).toHaveLength(20);
      await everythingAddsUp(shop);
    },
  );

  it('who put things into one cart from many tabs lose none, and order them once', async () => {
    const skus = await Promise.all(Array.from({ length: 10 }, () => shop.offer()));
    const tabs = await shop.guest();
    await Promise.all(skus.map((sku) => tabs.putInCart(sku)));
    expect((await tabs.get('/v1/cart')).body.items).toHaveLength(10);
    const answers = await Promise.all(Array.from({ length: 5 }, () => tabs.order()));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 409, 409, 409, 409]);
    for (const answer of answers.filter(({ status }) => status === 409)) expect(answer.problem(409)).toBe('CART_EMPTY');
    expect(answers.find(({ status }) => status === 201)!.body.items).toHaveLength(10);
    await everythingAddsUp(shop);
  });
});
