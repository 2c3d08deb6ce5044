import { setTimeout as pause } from 'node:timers/promises';
import { newId } from '@banyan/kernel';
import { eventually } from '@banyan/testing';
import { describe, expect, it } from 'vitest';
import { everythingAddsUp } from '../shop/invariants.js';
import { openShop } from '../shop/shop.js';
import type { Answer, Visitor } from '../shop/visitor.js';

const replays = 5;

/** As a good client does: while the first request still runs, it asks again a moment later. */
async function orderAgain(buyer: Visitor, key: string): Promise<Answer> {
  for (;;) {
    const answer = await buyer.order('tok_ok', key);
    if (answer.status !== 409) return answer;
    expect(answer.problem(409)).toBe('IDEMPOTENCY_IN_PROGRESS');
    await pause(20);
  }
}

describe.each([
  ['in-process', 1_000],
  ['loopback', 100],
] as const)('An Idempotency-Key, %s', (placement, keys) => {
  // Many wait for a connection at once here.
  const shop = openShop({ placement, settings: { BANYAN_DB_CONNECT_TIMEOUT_MS: '20000' } });

  it(
    `${keys} keys × ${replays} replays, some at once: one effect each, answers equal byte for byte`,
    { timeout: 180_000 },
    async () => {
      const sku = await shop.offer({ onHand: keys });
      const waiting = Array.from({ length: keys }, (_, i) => i);
      const ids = new Set<string>();
      const work = Array.from({ length: 16 }, async () => {
        for (let i = waiting.pop(); i !== undefined; i = waiting.pop()) {
          const buyer = await shop.guest();
          await buyer.putInCart(sku);
          const key = `order ${i}`.replace(' ', '-');
          const send = () => orderAgain(buyer, key);
          const answers: Answer[] = [];
          if (i % 2) answers.push(...(await Promise.all(Array.from({ length: 1 + replays }, send))));
          else for (let times = 0; times <= replays; times++) answers.push(await send());

          expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]));
          expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
          expect(new Set(answers.map(({ headers }) => headers.location)).size).toBe(1);
          const replayed = answers.filter(({ headers }) => headers['idempotent-replayed'] === 'true');
          expect(replayed).toHaveLength(replays);
          ids.add(answers[0]!.body.id);
        }
      });
      await Promise.all(work);
      expect(ids.size).toBe(keys);
      const [count] = await shop.sql<{ orders: string; customers: string }>(
        'select count(*) as orders, count(distinct customer_id) as customers from orders.orders',
      );
      expect(count).toEqual({ orders: String(keys), customers: String(keys) });
      await eventually(
        async () => (await shop.sql(`select 1 from orders.orders where status = 'pending' limit 1`)).length === 0,
        { timeoutMs: 60_000, intervalMs: 200 },
      );
      await everythingAddsUp(shop);
      expect((await shop.shelf(sku)).available).toBe(0);
      expect((await shop.psp.stats()).authorisations).toBe(keys);
    },
  );

  it('belongs to one customer: the same key of somebody else is another order', async () => {
    const sku = await shop.offer();
    const [one, two] = [await shop.guest(), await shop.guest()];
    const key = newId();
    await Promise.all([one.putInCart(sku), two.putInCart(sku)]);
    const [first, second] = [
      (await one.order('tok_ok', key)).expect(201),
      (await two.order('tok_ok', key)).expect(201),
    ];
    expect(second.body.id).not.toBe(first.body.id);
    expect(second.headers['idempotent-replayed']).toBeUndefined();
  });

  it('with another body is refused, and changes nothing', async () => {
    const sku = await shop.offer();
    const buyer = await shop.guest();
    const key = newId();
    await buyer.putInCart(sku);
    (await buyer.order('tok_ok', key)).expect(201);
    await buyer.putInCart(sku);
    expect((await buyer.order('tok_3ds', key)).problem(422)).toBe('IDEMPOTENCY_KEY_REUSED');
    expect((await buyer.get('/v1/cart')).body.items).toHaveLength(1);
  });

  it('of a request that was refused may be used again', async () => {
    const buyer = await shop.guest();
    const key = newId();
    expect((await buyer.order('tok_ok', key)).problem(409)).toBe('CART_EMPTY');
    await buyer.putInCart(await shop.offer());
    (await buyer.order('tok_ok', key)).expect(201);
  });

  it('that is missing or malformed is a 400', async () => {
    const buyer = await shop.guest();
    await buyer.putInCart(await shop.offer());
    expect((await buyer.order('tok_ok', 'x'.repeat(256))).problem(400)).toBe('IDEMPOTENCY_KEY_INVALID');
    expect((await buyer.order('tok_ok', 'two words')).problem(400)).toBe('IDEMPOTENCY_KEY_INVALID');
    expect((await buyer.post('/v1/orders', {})).problem(400)).toMatch(/IDEMPOTENCY_KEY_REQUIRED|INPUT_INVALID/);
    await everythingAddsUp(shop);
  });
});
