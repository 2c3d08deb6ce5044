import { newId } from '@banyan/kernel';
import { testDatabase } from '@banyan/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { type OrderShown, OrdersStore, type Progress } from './orders.store.js';

const test = testDatabase({ contexts: ['orders'] });

const payment = (status: string) => ({ payment: { id: order.id, status } }) as Progress;
const shipment = (status: string) => ({ shipment: { id: order.id, status, trackingNumber: 'T1' } }) as Progress;
let order: OrderShown;

describe('The read model of an order', () => {
  let store: OrdersStore;
  beforeEach(async () => {
    store = new OrdersStore(test.database('orders'));
    order = {
      id: newId(),
      status: 'pending',
      items: [{ sku: 'mug', productName: 'Mug', quantity: 2, unitPrice: { amount: 1, currency: 'EUR' } }],
      total: { amount: 2, currency: 'EUR' },
      shippingAddress: { name: 'Ada', line1: 'Street 1', city: 'Berlin', postalCode: '10115', country: 'DE' },
      payment: null,
      shipment: null,
      createdAt: '2026-01-01T00:00:00.123Z',
    };
    await store.insert(order, newId());
  });
  const shown = async () => (await store.find(order.id))!.order;
  const move = (from: OrderShown['status'][], to: OrderShown['status'], reason?: string) =>
    store.move({ orderId: order.id, from, to, reason, at: new Date('2026-01-02') }, {});

  it('shows the order as it was placed', async () => {
    expect(await shown()).toEqual(order);
  });

  it('moves with the order', async () => {
    expect(await move(['pending'], 'confirmed')).toMatchObject({ was: 'pending', total: order.total });
    await move(['confirmed'], 'rejected', 'TIMEOUT');
    expect(await shown()).toMatchObject({ status: 'rejected', reason: 'TIMEOUT' });
    expect(await test.admin('select status, reason from orders.orders where id = $1', [order.id])).toEqual([
      { status: 'rejected', reason: 'TIMEOUT' },
    ]);
  });

  it('stays as it is when the order may not move', async () => {
    expect(await move(['confirmed'], 'shipped')).toMatchObject({ was: 'pending' });
    expect((await shown()).status).toBe('pending');
  });

  it('shows the latest of payment and shipment, whichever news come last', async () => {
    for (const news of [payment('requires_action'), payment('captured'), shipment('delivered')])
      await store.show(order.id, news);
    for (const late of [payment('authorised'), shipment('dispatched'), shipment('pending')]) {
      await store.show(order.id, late);
      expect(await shown()).toMatchObject({ payment: { status: 'captured' }, shipment: { status: 'delivered' } });
    }
    for (const news of ['refunded', 'captured', 'refunded']) await store.show(order.id, payment(news));
    expect((await shown()).payment).toEqual({ id: order.id, status: 'refunded' });
  });

  it('tells of an unknown order that there is none', async () => {
    expect(await store.find(newId())).toBeUndefined();
    const unknown = { orderId: newId(), from: ['pending' as const], to: 'confirmed' as const, at: new Date(0) };
    expect(await store.move(unknown, {})).toBeUndefined();
  });
});
