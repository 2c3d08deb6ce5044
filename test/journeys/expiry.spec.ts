import { eventually } from '@banyan/testing';
import { describe, expect, it } from 'vitest';
import { everythingAddsUp, everythingEnds } from '../shop/invariants.js';
import { openShop, placements } from '../shop/shop.js';

describe.each(placements)('A reservation that expires, %s', (placement) => {
  const shop = openShop({ placement });
  /** Its time is over now, and not before: a sweep may come at any moment. */
  const endHold = (orderId: string) =>
    shop.sql(`update inventory.reservation set expires_at = now() - interval '1 min' where order_id = $1`, [orderId]);

  it('frees the goods, and a payment that comes too late is given back', async () => {
    const sku = await shop.offer({ onHand: 1 });
    const slow = await shop.guest();
    const id = await slow.buy(sku, { pay: 'tok_3ds' });
    const { payment } = await slow.until(id, (order) => order.payment?.status === 'requires_action');
    expect(await shop.shelf(sku)).toEqual({ onHand: 1, reserved: 1, available: 0 });
    await endHold(id);
    await eventually(
      async () => {
        await shop.wake('inventory.expire-reservations');
        return (await shop.shelf(sku)).available === 1;
      },
      { timeoutMs: 20_000, intervalMs: 100 },
    );

    const { actionUrl } = (await slow.get(`/v1/payments/${payment.id}`)).expect(200).body;
    const answered = await fetch(actionUrl, { method: 'POST', body: '{"outcome":"success"}' });
    expect(answered.status).toBe(200);
    expect(await slow.until(id, 'rejected')).toMatchObject({ reason: 'RESERVATION_CLOSED' });
    await everythingAddsUp(shop);
    expect(await shop.shelf(sku)).toEqual({ onHand: 1, reserved: 0, available: 1 });
    const { authorised, captured, voided } = (await shop.psp.stats()).totals.EUR!;
    expect({ voided, captured }).toEqual({ voided: authorised, captured: 0 });
  });

  it('does not take back what is sold', async () => {
    const sku = await shop.offer({ onHand: 1 });
    const quick = await shop.guest();
    const id = await quick.buy(sku);
    await quick.until(id, 'confirmed');
    await endHold(id);
    await shop.wake('inventory.expire-reservations');
    await shop.ship(quick, id);
    await everythingAddsUp(shop);
    expect(await shop.shelf(sku)).toEqual({ onHand: 0, reserved: 0, available: 0 });
  });

  it('leaves nothing open and nothing wrong', () => everythingEnds(shop));
});
