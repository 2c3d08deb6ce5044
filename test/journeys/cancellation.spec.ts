import { describe, expect, it } from 'vitest';
import { everythingAddsUp, everythingEnds } from '../shop/invariants.js';
import { everyPlacement, openShop } from '../shop/shop.js';
import type { Visitor } from '../shop/visitor.js';

describe.each(everyPlacement)('Cancelling an order, %s', (placement) => {
  // Many wait for a connection at once here.
  const shop = openShop({ placement, settings: { BANYAN_DB_CONNECT_TIMEOUT_MS: '20000' } });

  const subjectsFor = async (buyer: Visitor) =>
    (await shop.sql('select kind from notifications.message where user_id = $1 order by id', [buyer.id])).map(
      ({ kind }) => kind,
    );
  const paymentOf = async (orderId: string) =>
    (await shop.sql('select status, authorised, captured from payments.payment where order_id = $1', [orderId]))[0];
  const shipmentOf = async (orderId: string) =>
    (await shop.sql('select status, address from shipping.shipment where order_id = $1', [orderId]))[0];

  it('before it is confirmed: the goods are free, nothing is paid, nothing is sent', async () => {
    const sku = await shop.offer({ onHand: 2 });
    const gus = await shop.customer('Gus');
    const id = await gus.buy(sku, { quantity: 2, pay: 'tok_3ds' });
    const { payment } = await gus.until(id, (order) => order.payment?.status === 'requires_action');
    const { actionUrl } = (await gus.get(`/v1/payments/${payment.id}`)).expect(200).body;

    expect((await gus.cancel(id)).expect(200).body).toMatchObject({ id, status: 'cancelled' });
    await everythingAddsUp(shop);
    expect(await shop.shelf(sku)).toEqual({ onHand: 2, reserved: 0, available: 2 });
    expect(await paymentOf(id)).toMatchObject({ status: 'voided', captured: '0' });
    expect(await shipmentOf(id)).toMatchObject({ status: 'cancelled', address: null });
    expect(await subjectsFor(gus)).toEqual(['welcome', 'order-cancelled']);

    // Whoever answers the challenge now is too late.
    const late = await fetch(actionUrl, { method: 'POST', body: '{"outcome":"success"}' });
    expect(late.status).toBe(409);
    await everythingAddsUp(shop);
  });

  it('after it was confirmed: the goods are back, the payment is voided, the parcel stays', async () => {
    const sku = await shop.offer({ onHand: 2 });
    const hal = await shop.customer('Hal');
    const id = await hal.buy(sku);
    const { shipment } = await hal.until(id, (order) => order.status === 'confirmed' && order.shipment);

    expect((await hal.cancel(id)).expect(200).body.status).toBe('cancelled');
    await everythingAddsUp(shop);
    expect(await shop.shelf(sku)).toEqual({ onHand: 2, reserved: 0, available: 2 });
    expect(await paymentOf(id)).toMatchObject({ status: 'voided', authorised: expect.anything(), captured: '0' });
    expect(await shipmentOf(id)).toMatchObject({ status: 'cancelled' });
    expect(await subjectsFor(hal)).toEqual(['welcome', 'order-confirmed', 'order-cancelled']);
    expect((await hal.see(id)).shipment.status).toBe('cancelled');

    // The carrier's late word does not bring it to life again.
    (await shop.carrierSays(shipment.trackingNumber, 'dispatched')).expect(204);
    await everythingAddsUp(shop);
    expect((await hal.see(id)).status).toBe('cancelled');
  });

  it('again gives the same answer', async () => {
    const ida = await shop.customer('Ida');
    const id = await ida.buy(await shop.offer());
    await ida.until(id, 'confirmed');
    const first = (await ida.cancel(id)).expect(200).body;
    expect((await ida.cancel(id)).expect(200).body).toMatchObject({ id: first.id, status: 'cancelled' });
  });

  it('after it has shipped is refused, and changes nothing', async () => {
    const sku = await shop.offer({ onHand: 1 });
    const jan = await shop.customer('Jan');
    const id = await jan.buy(sku);
    await shop.ship(jan, id);
    expect((await jan.cancel(id)).problem(409)).toBe('ORDER_NOT_CANCELLABLE');
    await jan.until(id, (order) => order.payment.status === 'captured');
    expect(await jan.see(id)).toMatchObject({ status: 'shipped', shipment: { status: 'dispatched' } });
    await everythingAddsUp(shop);
  });

  it('that was rejected is refused', async () => {
    const kim = await shop.customer('Kim');
    const id = await kim.buy(await shop.offer(), { pay: 'tok_declined' });
    await kim.until(id, 'rejected');
    expect((await kim.cancel(id)).problem(409)).toBe('ORDER_NOT_CANCELLABLE');
  });

  it('at whatever moment of its checkout: it ends cancelled, and all contexts agree', { timeout: 60_000 }, async () => {
    const sku = await shop.offer({ onHand: 40 });
    const endings = await Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        const buyer = await shop.guest();
        const id = await buyer.buy(sku);
        // The moments spread over the time that a checkout takes.
        await new Promise((resolve) => setTimeout(resolve, i * 8));
        (await buyer.cancel(id)).expect(200);
        return (await buyer.see(id)).status;
      }),
    );
    expect(new Set(endings)).toEqual(new Set(['cancelled']));
    await everythingAddsUp(shop);
    expect(await shop.shelf(sku)).toEqual({ onHand: 40, reserved: 0, available: 40 });
  });

  it('leaves nothing open and nothing wrong', () => everythingEnds(shop));
});
