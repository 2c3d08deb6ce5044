import { describe, expect, it } from 'vitest';
import { everythingAddsUp, everythingEnds } from '../shop/invariants.js';
import { everyPlacement, openShop, placements } from '../shop/shop.js';

describe.each(everyPlacement)('A purchase, %s', (placement) => {
  const shop = openShop({ placement });

  it('goes from the first look to the delivered parcel', async () => {
    const sku = await shop.offer({ onHand: 5, amount: 1299, name: 'Quillwort teapot' });
    const ada = await shop.customer('Ada');
    expect((await ada.get('/v1/me')).expect(200).body).toMatchObject({ id: ada.id, email: ada.email, name: 'Ada' });

    expect((await ada.get('/v1/products?limit=100')).expect(200).body.items).toContainEqual(
      expect.objectContaining({ sku }),
    );
    const [found] = (await ada.get('/v1/products?q=quillwort')).expect(200).body.items;
    expect(found).toMatchObject({ sku, price: { amount: 1299, currency: 'EUR' } });

    expect((await ada.putInCart(sku, 2)).body).toMatchObject({
      items: [{ sku, quantity: 2, lineTotal: { amount: 2598, currency: 'EUR' } }],
      total: { amount: 2598, currency: 'EUR' },
    });
    const placed = (await ada.order()).expect(201);
    expect(placed.body).toMatchObject({ status: 'pending', total: { amount: 2598, currency: 'EUR' }, payment: null });
    expect(placed.headers.location).toBe(`/v1/orders/${placed.body.id}`);
    expect((await ada.get('/v1/cart')).body).toMatchObject({ items: [], total: { amount: 0 } });
    const { id } = placed.body;

    const confirmed = await ada.until(id, (order) => order.status === 'confirmed' && order.shipment);
    expect(confirmed).toMatchObject({ payment: { status: 'authorised' }, shipment: { status: 'pending' } });
    expect(await shop.shelf(sku)).toEqual({ onHand: 3, reserved: 0, available: 3 });

    await shop.ship(ada, id);
    const shipped = await ada.until(id, (order) => order.payment.status === 'captured');
    const payment = (await ada.get(`/v1/payments/${shipped.payment.id}`)).expect(200).body;
    expect(payment).toMatchObject({ orderId: id, status: 'captured', captured: { amount: 2598, currency: 'EUR' } });

    (await shop.carrierSays(shipped.shipment.trackingNumber, 'delivered')).expect(204);
    expect(await ada.until(id, 'delivered')).toMatchObject({ shipment: { status: 'delivered' } });
    const shipment = (await ada.get(`/v1/shipments/${shipped.shipment.id}`)).expect(200).body;
    expect(shipment.events.map(({ status }: { status: string }) => status)).toEqual([
      'pending',
      'dispatched',
      'delivered',
    ]);

    expect((await ada.get('/v1/orders')).expect(200).body).toMatchObject({ items: [{ id }], nextCursor: null });
    await everythingAddsUp(shop);
    const told = await shop.sql('select kind from notifications.message where user_id = $1 order by id', [ada.id]);
    expect(told.map(({ kind }) => kind)).toEqual(['welcome', 'order-confirmed', 'order-shipped', 'order-delivered']);
  });

  it('of more than there is, is rejected: nothing stays reserved, and no money is asked for', async () => {
    const [plenty, scarce] = [await shop.offer({ onHand: 10 }), await shop.offer({ onHand: 1 })];
    const bob = await shop.customer('Bob');
    await bob.putInCart(plenty, 2);
    await bob.putInCart(scarce, 2);
    const { id } = (await bob.order()).expect(201).body;
    expect(await bob.until(id, 'rejected')).toMatchObject({ reason: 'OUT_OF_STOCK', payment: null, shipment: null });
    await everythingAddsUp(shop);
    expect(await shop.shelf(plenty)).toEqual({ onHand: 10, reserved: 0, available: 10 });
    expect(await shop.shelf(scarce)).toEqual({ onHand: 1, reserved: 0, available: 1 });
    const asked = await shop.sql(
      `select type from payments.payment_event e join payments.payment p on p.id = e.payment_id
      where p.order_id = $1 and e.type <> 'cancelled'`,
      [id],
    );
    expect(asked).toEqual([]);
  });

  it('with a declined card is rejected, and the goods are free again', async () => {
    const sku = await shop.offer({ onHand: 3 });
    const carl = await shop.customer('Carl');
    const id = await carl.buy(sku, { quantity: 3, pay: 'tok_declined' });
    expect(await carl.until(id, 'rejected')).toMatchObject({ reason: 'PAYMENT_DECLINED' });
    await everythingAddsUp(shop);
    expect(await shop.shelf(sku)).toEqual({ onHand: 3, reserved: 0, available: 3 });
  });

  it('whose payment timed out although it was made, is confirmed and charged exactly once', async () => {
    const sku = await shop.offer({ onHand: 3 });
    const dora = await shop.customer('Dora');
    const before = (await shop.psp.stats()).authorisations;
    const id = await dora.buy(sku, { pay: 'tok_timeout' });
    await dora.until(id, 'confirmed');
    expect((await shop.psp.stats()).authorisations).toBe(before + 1);
    await shop.ship(dora, id);
    await dora.until(id, (order) => order.payment.status === 'captured');
  });

  it.each([
    ['success', 'confirmed'],
    ['failure', 'rejected'],
  ])('with 3-D Secure waits for the customer; %s: %s', async (outcome, status) => {
    const sku = await shop.offer({ onHand: 1 });
    const eve = await shop.customer('Eve');
    const id = await eve.buy(sku, { pay: 'tok_3ds' });
    const waiting = await eve.until(id, (order) => order.payment?.status === 'requires_action');
    expect(waiting.status).toBe('pending');
    expect(await shop.shelf(sku)).toEqual({ onHand: 1, reserved: 1, available: 0 });
    const { actionUrl } = (await eve.get(`/v1/payments/${waiting.payment.id}`)).expect(200).body;
    expect((await fetch(actionUrl)).status).toBe(200);
    const answered = await fetch(actionUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ outcome }),
    });
    expect(answered.status).toBe(200);
    await eve.until(id, status);
    expect((await shop.shelf(sku)).available).toBe(status === 'confirmed' ? 0 : 1);
  });

  it('leaves nothing open and nothing wrong', () => everythingEnds(shop));
});

describe.each(placements)('A purchase with the simulated carrier, %s', (placement) => {
  const shop = openShop({
    placement,
    settings: { BANYAN_CARRIER_DISPATCH_MS: '50', BANYAN_CARRIER_DELIVERY_MS: '50' },
  });

  it('is delivered without anybody doing anything', async () => {
    const sku = await shop.offer();
    const fay = await shop.customer('Fay');
    const id = await fay.buy(sku);
    await fay.until(id, 'delivered');
    await everythingAddsUp(shop);
  });
});
