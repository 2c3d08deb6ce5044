import { type AnyEvent, anonymous } from '@banyan/kernel';
import { type CommandContext, newScope, runInScope } from '@banyan/messaging';
import { describe, expect, it } from 'vitest';
import { IllegalMove, type OrderStatus } from './domain/order.js';
import { OrderMoves } from './order-moves.js';
import type { OrderWatch } from './order-watch.js';
import type { OrdersStore } from './orders.store.js';

/** An order that is found in `was`; everything that is published or told is noted. */
function given(was: OrderStatus | undefined) {
  const happened: unknown[] = [];
  const found = was && { was, customerId: 'ada', total: { amount: 5, currency: 'EUR' } };
  const store = { move: async () => found } as unknown as OrdersStore;
  const watch = { changed: (id: string) => void happened.push(`${id} changed`) } as unknown as OrderWatch;
  const emit = (event: AnyEvent, id: string, data: object) => void happened.push([event.name, id, data]);
  const ctx = { now: new Date(0), emit } as unknown as CommandContext;
  return { moves: new OrderMoves(store, watch), ctx, happened };
}
const shipment = { id: 's1', status: 'delivered' as const, trackingNumber: 'T1' };
const order = { orderId: 'o1', customerId: 'ada' };

describe('Moving an order', () => {
  it('publishes what happened, in order, and wakes those who wait', async () => {
    const { moves, ctx, happened } = given('confirmed');
    await moves.move('o1', { type: 'deliver' }, ctx, { shipment });
    expect(happened).toEqual([
      ['orders.OrderShipped', 'o1', { ...order, trackingNumber: 'T1' }],
      ['orders.OrderDelivered', 'o1', order],
      'o1 changed',
    ]);
  });

  it('wakes those who wait only once it has been committed', async () => {
    const { moves, ctx, happened } = given('pending');
    const committed: (() => void)[] = [];
    const scope = { ...newScope(anonymous), afterCommit: (fn: () => void) => void committed.push(fn) };
    await runInScope(scope, () => moves.move('o1', { type: 'confirm' }, ctx));
    expect(happened).toEqual([['orders.OrderConfirmed', 'o1', { ...order, total: { amount: 5, currency: 'EUR' } }]]);
    for (const fn of committed) fn();
    expect(happened.at(-1)).toBe('o1 changed');
  });

  it('publishes nothing when it is so already', async () => {
    const { moves, ctx, happened } = given('delivered');
    await moves.move('o1', { type: 'deliver' }, ctx, { shipment });
    expect(happened).toEqual(['o1 changed']);
  });

  it('throws on an illegal move and on an unknown order', async () => {
    const rejected = given('rejected');
    await expect(rejected.moves.move('o1', { type: 'confirm' }, rejected.ctx)).rejects.toThrow(IllegalMove);
    expect(rejected.happened).toEqual([]);
    const unknown = given(undefined);
    await expect(unknown.moves.move('o1', { type: 'confirm' }, unknown.ctx)).rejects.toThrow('no order o1');
  });
});
