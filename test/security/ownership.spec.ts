import { newId } from '@banyan/kernel';
import { beforeAll, describe, expect, it } from 'vitest';
import { everythingAddsUp } from '../shop/invariants.js';
import { openShop, placements } from '../shop/shop.js';
import type { Visitor } from '../shop/visitor.js';
import { aim, fingerprint, open, routesIn, staffOnly } from './routes.js';

/** Routes that name an object of one customer: which object, and the code that says "there is no such thing". */
const owned: Record<string, { object: 'order' | 'payment' | 'shipment'; code: string }> = {
  'GET /v1/orders/:id': { object: 'order', code: 'ORDER_NOT_FOUND' },
  'POST /v1/orders/:id/cancel': { object: 'order', code: 'ORDER_NOT_FOUND' },
  'GET /v1/payments/:id': { object: 'payment', code: 'PAYMENT_NOT_FOUND' },
  'GET /v1/shipments/:id': { object: 'shipment', code: 'SHIPMENT_NOT_FOUND' },
};

/** Routes whose parameter names no object of anybody: the cart is always the caller's own. */
const ownByNature = ['PUT /v1/cart/items/:sku', 'DELETE /v1/cart/items/:sku'];

describe.each(placements)('What belongs to a customer, %s', (placement) => {
  const shop = openShop({ placement });
  let alice: Visitor;
  let mallory: Visitor;
  let sku: string;
  const ids: Record<string, string> = {};

  beforeAll(async () => {
    [alice, mallory] = [await shop.customer('Alice'), await shop.customer('Mallory')];
    sku = await shop.offer();
    ids.order = await alice.buy(sku);
    const order = await alice.until(ids.order, ({ status, shipment }) => status === 'confirmed' && shipment);
    ids.payment = order.payment.id;
    ids.shipment = order.shipment.id;
    await alice.putInCart(sku, 3);
    await everythingAddsUp(shop);
  });

  it('is named by the routes that this test knows, and by no other', () => {
    const named = routesIn(shop).filter((route) => route.includes(':'));
    const known = [...Object.keys(owned), ...ownByNature, ...open, ...staffOnly].filter((route) => route.includes(':'));
    expect(named.sort()).toEqual(known.sort());
  });

  it('is not there for another customer, on any route, and nothing changes', async () => {
    const before = await fingerprint(shop);
    for (const [route, { object, code }] of Object.entries(owned)) {
      const { method, path } = aim(route, { id: ids[object]! });
      const [theirs, nobodys] = [
        await mallory.ask(method, path),
        await mallory.ask(method, aim(route, { id: newId() }).path),
      ];
      expect(theirs.problem(404), route).toBe(code);
      // Not even a difference tells that it exists.
      expect({ ...theirs.body, traceId: '' }).toEqual({ ...nobodys.body, traceId: '' });
      const head = await mallory.ask('HEAD', path);
      if (method === 'GET') expect(head.status).toBe(404);
    }
    expect(await fingerprint(shop)).toEqual(before);
    (await alice.get(`/v1/payments/${ids.payment}`)).expect(200);
    (await alice.get(`/v1/shipments/${ids.shipment}`)).expect(200);
  });

  it('is not in another customer’s lists', async () => {
    expect((await mallory.get('/v1/orders')).body.items).toEqual([]);
    expect((await mallory.get('/v1/cart')).body.items).toEqual([]);
  });

  it('stays when another customer empties the cart that she thinks is Alice’s', async () => {
    (await mallory.ask('DELETE', `/v1/cart/items/${sku}`)).expect(200);
    (await mallory.putInCart(sku, 1)).expect(200);
    expect((await alice.get('/v1/cart')).body.items).toMatchObject([{ sku, quantity: 3 }]);
  });

  it('is not reached with a cursor or a key of its owner', async () => {
    for (let i = 0; i < 2; i++) {
      await alice.putInCart(sku);
      (await alice.order('tok_declined')).expect(201);
    }
    const { nextCursor } = (await alice.get('/v1/orders?limit=1')).body;
    expect((await mallory.get(`/v1/orders?cursor=${nextCursor}`)).expect(200).body.items).toEqual([]);
    const key = newId();
    await alice.putInCart(sku);
    const first = (await alice.order('tok_ok', key)).expect(201).body;
    const second = await mallory.order('tok_ok', key);
    expect(second.expect(201).body.id).not.toBe(first.id);
  });

  it('may be read by staff, but her order is not theirs to cancel', async () => {
    const staff = await shop.staff();
    for (const path of [`/v1/orders/${ids.order}`, `/v1/payments/${ids.payment}`, `/v1/shipments/${ids.shipment}`])
      (await staff.get(path)).expect(200);
    expect((await staff.cancel(ids.order!)).problem(404)).toBe('ORDER_NOT_FOUND');
    expect((await alice.see(ids.order!)).status).toBe('confirmed');
  });
});
