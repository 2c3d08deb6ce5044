import { shipping } from '@banyan/contracts';
import { newId } from '@banyan/kernel';
import { eventually, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Shop, type Visitor, shopContexts } from './shop.spec-support.js';

const test = testDatabase({ contexts: shopContexts });
/** A step that could not be kept is taken up again when its lease of ten seconds is over. */
const patient = { timeoutMs: 25_000 };
let shop: Shop;

beforeAll(async () => {
  shop = await Shop.open(test);
  await shop.offer('mug');
  await shop.offer('rare');
  shop.world.stock.set('rare', 0);
  await eventually(async () => (await test.admin('select from orders.product')).length === 2, patient);
});
afterAll(() => shop?.close());

/** The order once it is as wanted. */
const becomes = (visitor: Visitor, id: string, wanted: object) =>
  eventually(async () => {
    const { body } = await visitor.see(id);
    expect(body).toMatchObject(wanted);
    return body;
  }, patient);
/** What the order holds elsewhere, once it is as wanted. */
const leaves = (id: string, wanted: object) =>
  eventually(() => {
    expect(shop.world.of(id)).toEqual(wanted);
    return true;
  }, patient);
const sagaOf = async (id: string) =>
  (await test.admin<{ state: string }>('select state from orders.saga where id = $1', [id]))[0]!.state;
const published = async (id: string) =>
  (
    await test.admin<{ type: string }>(
      'select distinct version, type from orders.outbox where aggregate = $1 order by version',
      [`order/${id}`],
    )
  ).map(({ type }) => type.slice('orders.'.length));

describe('A purchase', () => {
  it('goes from the cart to the doorstep', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug');
    const confirmed = await becomes(ada, id, {
      status: 'confirmed',
      payment: { status: 'authorised' },
      shipment: { status: 'pending', trackingNumber: 'T1' },
    });
    expect(confirmed.payment.id).toBe(shop.world.payments.get(id)!.id);
    await shop.carrierSays(id, 'dispatched');
    await becomes(ada, id, { status: 'shipped', payment: { status: 'captured' }, shipment: { status: 'dispatched' } });
    await shop.carrierSays(id, 'delivered');
    await becomes(ada, id, { status: 'delivered', shipment: { status: 'delivered' } });
    expect(shop.world.of(id)).toEqual({ stock: 'committed', payment: 'captured', shipment: 'delivered' });
    await eventually(async () => (await sagaOf(id)) === 'completed', patient);
    expect(await published(id)).toEqual(['OrderPlaced', 'OrderConfirmed', 'OrderShipped', 'OrderDelivered']);
  });

  it('is rejected when there is too little stock', async () => {
    const ada = shop.customer();
    const id = await ada.buy('rare');
    await becomes(ada, id, { status: 'rejected', reason: 'OUT_OF_STOCK', payment: null, shipment: null });
    expect(shop.world.of(id)).toMatchObject({ stock: 'released', payment: undefined });
    expect(await published(id)).toEqual(['OrderPlaced', 'OrderRejected']);
    expect((await ada.cancel(id)).body.code).toBe('ORDER_NOT_CANCELLABLE');
  });

  it('is rejected when the payment is declined', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug', 'tok_declined');
    await becomes(ada, id, { status: 'rejected', reason: 'PAYMENT_DECLINED', payment: { status: 'declined' } });
    expect(shop.world.of(id).stock).toBe('released');
  });

  it.each([
    ['payment.authorised', { status: 'confirmed', payment: { status: 'authorised' } }],
    ['payment.declined', { status: 'rejected', reason: 'PAYMENT_DECLINED', payment: { status: 'declined' } }],
  ] as const)('waits for 3-D Secure, and for %s goes on', async (answer, wanted) => {
    const ada = shop.customer();
    const id = await ada.buy('mug', 'tok_3ds');
    await becomes(ada, id, { status: 'pending', payment: { status: 'requires_action' } });
    await shop.providerSays(id, answer);
    await becomes(ada, id, wanted);
  });

  it('is delivered, and paid, also when the carrier’s words come close together', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug');
    await becomes(ada, id, { shipment: { status: 'pending' } });
    await shop.carrierSays(id, 'dispatched');
    await shop.carrierSays(id, 'delivered');
    await becomes(ada, id, { status: 'delivered', payment: { status: 'captured' }, shipment: { status: 'delivered' } });
    await eventually(async () => (await sagaOf(id)) === 'completed', patient);
    expect(await published(id)).toEqual(['OrderPlaced', 'OrderConfirmed', 'OrderShipped', 'OrderDelivered']);
  });

  it('is delivered before its saga has noted the dispatch', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug');
    await becomes(ada, id, { shipment: { status: 'pending' } });
    await shop.carrierSays(id, 'delivered');
    await becomes(ada, id, { status: 'delivered' });
    expect(await published(id)).toEqual(['OrderPlaced', 'OrderConfirmed', 'OrderShipped', 'OrderDelivered']);
    await shop.carrierSays(id, 'dispatched');
    await becomes(ada, id, { status: 'delivered', payment: { status: 'captured' }, shipment: { status: 'delivered' } });
  });
});

describe('Cancelling an order', () => {
  const undone = { stock: 'released', payment: 'voided', shipment: 'cancelled' };

  it('stops the checkout, the shipment, and gives stock and money back', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug');
    await becomes(ada, id, { status: 'confirmed', shipment: { status: 'pending' } });
    const { status, body } = await ada.cancel(id);
    expect([status, body.status]).toEqual([200, 'cancelled']);
    await becomes(ada, id, { status: 'cancelled', payment: { status: 'voided' }, shipment: { status: 'cancelled' } });
    await leaves(id, undone);
    await eventually(async () => /^(cancelled|compensated)$/.test(await sagaOf(id)), patient);
    const again = await ada.cancel(id);
    expect([again.status, again.body]).toEqual([200, (await ada.see(id)).body]);
    expect(await published(id)).toEqual(['OrderPlaced', 'OrderConfirmed', 'OrderCancelled']);
  });

  it('stops a payment that waits for its customer', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug', 'tok_3ds');
    await becomes(ada, id, { payment: { status: 'requires_action' } });
    expect((await ada.cancel(id)).body.status).toBe('cancelled');
    await leaves(id, undone);
    await shop.providerSays(id, 'payment.authorised');
    await becomes(ada, id, { status: 'cancelled' });
    expect(await sagaOf(id)).toBe('cancelled');
  });

  it('is refused once the carrier has the goods, even if nobody here knows yet', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug');
    await becomes(ada, id, { shipment: { status: 'pending' } });
    const { id: shipment } = shop.world.shipments.get(id)!;
    shop.world.shipments.set(id, { id: shipment, status: 'dispatched' });
    const refused = await ada.cancel(id);
    expect([refused.status, refused.body.code]).toEqual([409, 'ORDER_NOT_CANCELLABLE']);
    await shop.carrierSays(id, 'dispatched');
    await becomes(ada, id, { status: 'shipped' });
    expect((await ada.cancel(id)).status).toBe(409);
  });

  it('is finished by the saga when it broke off after the shipment was stopped', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug');
    await becomes(ada, id, { shipment: { status: 'pending' } });
    await shop.client(shipping).cancelShipment({ orderId: id });
    await becomes(ada, id, { status: 'cancelled' });
    await leaves(id, undone);
    expect(await published(id)).toEqual(['OrderPlaced', 'OrderConfirmed', 'OrderCancelled']);
  });

  const places = ['inventory.reserve', 'payments.authorise', 'inventory.commit', 'shipping.createShipment'];
  it.each(places.flatMap((place) => [`before ${place}`, `after ${place}`]))(
    'leaves nothing behind when it comes %s has been done',
    async (place) => {
      const gate = shop.stopAt(place);
      const ada = shop.customer();
      const id = await ada.buy('mug');
      await gate.reached;
      const answer = await ada.cancel(id);
      gate.open();
      expect([answer.status, answer.body.status]).toEqual([200, 'cancelled']);
      await isUndone(ada, id);
    },
  );

  it('wins over a rejection that is being prepared', async () => {
    const gate = shop.stopAt('before inventory.release');
    const ada = shop.customer();
    const id = await ada.buy('mug', 'tok_declined');
    await gate.reached;
    expect((await ada.cancel(id)).body.status).toBe('cancelled');
    gate.open();
    await eventually(async () => (await sagaOf(id)) === 'compensated', patient);
    // What becomes of the payment is told by an event of its own.
    await becomes(ada, id, { status: 'cancelled', payment: { status: 'declined' } });
    expect(await published(id)).toEqual(['OrderPlaced', 'OrderCancelled']);
  });

  it('leaves nothing behind, whenever it comes', { timeout: 120_000 }, async () => {
    for (let delay = 0; delay < 50; delay += 2) {
      const ada = shop.customer();
      const id = await ada.buy('mug');
      await new Promise((resolve) => setTimeout(resolve, delay));
      const answers = await Promise.all([ada.cancel(id), ada.cancel(id)]);
      expect(answers.map(({ status }) => status)).toEqual([200, 200]);
      await isUndone(ada, id);
    }
  });

  async function isUndone(visitor: Visitor, id: string) {
    await leaves(id, undone);
    await eventually(async () => /^(cancelled|compensated)$/.test(await sagaOf(id)), patient);
    expect((await visitor.see(id)).body.status).toBe('cancelled');
    const events = await published(id);
    expect(events.filter((name) => name === 'OrderCancelled')).toHaveLength(1);
    expect(events).not.toContain('OrderRejected');
  }
});

describe('Prefer: wait', () => {
  it('answers as soon as the order is decided', async () => {
    const ada = shop.customer();
    await ada.put('mug');
    const { id } = (await ada.order('tok_3ds')).body;
    await becomes(ada, id, { payment: { status: 'requires_action' } });
    const asked = performance.now();
    const waiting = ada.see(id, { prefer: 'wait=10' });
    await shop.providerSays(id, 'payment.authorised');
    const { body, headers } = await waiting;
    expect(body.status).toBe('confirmed');
    expect(headers['preference-applied']).toBe('wait=10');
    expect(performance.now() - asked).toBeLessThan(10_000);
  });

  it('answers the pending order when the time is over', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug', 'tok_3ds');
    const { status, body, headers } = await ada.see(id, { prefer: 'wait=1' });
    expect([status, body.status, headers['preference-applied']]).toEqual([200, 'pending', 'wait=1']);
  });

  it('is 404 at once for an order that is not yours', async () => {
    expect((await shop.customer().see(newId(), { prefer: 'wait=10' })).status).toBe(404);
  });
});
