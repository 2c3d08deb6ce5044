import { DomainError } from '@banyan/kernel';
import { type CommandContext, type SagaStep, wait } from '@banyan/messaging';
import { describe, expect, it } from 'vitest';
import { Checkout, type CheckoutData } from './checkout.saga.js';
import type { OrderMoves } from './order-moves.js';

const data: CheckoutData = {
  orderId: '01900000-0000-7000-8000-000000000001',
  customerId: '01900000-0000-7000-8000-000000000002',
  total: { amount: 2598, currency: 'EUR' },
  method: 'tok_ok',
  address: { name: 'Ada', line1: 'Street 1', city: 'Berlin', postalCode: '10115', country: 'DE' },
  lines: [{ sku: 'mug', quantity: 2 }],
};
const ctx = {} as CommandContext;

type Answers = Record<string, unknown>;

/** The checkout with clients that answer from a table; an Error in it is thrown. Everything that happens is noted. */
function checkout(answers: Answers = {}) {
  const happened: string[] = [];
  const client = (name: string, defaults: Answers) =>
    new Proxy({} as never, {
      get: (_, operation: string) => async () => {
        const call = `${name}.${operation}`;
        happened.push(call);
        const answer = answers[call] ?? defaults[operation];
        if (answer instanceof Error) throw answer;
        return answer;
      },
    });
  const moves = {
    move: async (_: string, command: { type: string; reason?: string }, __: unknown, shown?: object) =>
      void happened.push([command.type, command.reason, ...show(shown)].filter(Boolean).join(' ')),
    show: async (_: string, shown: object) => void happened.push(show(shown).join(' ')),
  } as unknown as OrderMoves;
  const { saga } = new Checkout(
    moves,
    client('inventory', { reserve: {}, commit: {}, release: {} }),
    client('payments', { authorise: { id: 'p1', status: 'authorised' }, capture: {}, cancel: { status: 'done' } }),
    client('shipping', {
      createShipment: { id: 's1', trackingNumber: 'T1' },
      cancelShipment: { outcome: 'cancelled' },
    }),
  );
  return { saga, happened };
}

const show = (shown: object = {}) =>
  Object.entries(shown).map(([part, value]) => `${part}:${(value as { status: string }).status}`);

type Signals = Record<string, { done: Partial<CheckoutData> } | { refused: string }>;

/** Runs the steps as the engine does, without its rows: forwards until one refuses, then back. */
async function run({ saga, happened }: ReturnType<typeof checkout>, signals: Signals = {}) {
  let state = data;
  const undo = async (index: number, reason: string) => {
    for (const step of saga.steps.slice(0, index + 1).reverse()) await step.compensate?.(state, {});
    await saga.onCompensated(state, reason, ctx);
    return happened;
  };
  for (const [index, step] of saga.steps.entries()) {
    try {
      const result = step.run ? await step.run(state, {}) : wait<CheckoutData>();
      let facts = 'done' in result ? result.done : result.wait;
      if ('wait' in result) {
        state = { ...state, ...facts };
        await step.onWait?.(state, ctx);
        const signal = signals[step.name];
        if (!signal) return happened;
        if ('refused' in signal) return await undo(index, signal.refused);
        facts = signal.done;
      }
      state = { ...state, ...facts };
      await step.onDone?.(state, ctx);
    } catch (error) {
      return undo(index, (error as DomainError).code);
    }
  }
  return happened;
}

const dispatched: Signals = { dispatch: { done: { shipmentId: 's1', trackingNumber: 'T1' } } };
const refusal = (code: string) => new DomainError(code, 'conflict', code);

describe('The checkout', () => {
  it('sells, ships and takes the money, in this order', async () => {
    expect(await run(checkout(), dispatched)).toEqual([
      'inventory.reserve',
      'payments.authorise',
      'inventory.commit',
      'confirm payment:authorised',
      'shipping.createShipment',
      'shipment:pending',
      'ship shipment:dispatched',
      'payments.capture',
    ]);
  });

  it('takes no money before the carrier has the goods', async () => {
    expect(await run(checkout())).not.toContain('payments.capture');
  });

  it('rejects an order that cannot be reserved', async () => {
    expect(await run(checkout({ 'inventory.reserve': refusal('OUT_OF_STOCK') }))).toEqual([
      'inventory.reserve',
      'inventory.release',
      'reject OUT_OF_STOCK',
    ]);
  });

  it('rejects an order whose payment is declined, and gives the stock back', async () => {
    const declined = { id: 'p1', status: 'declined', reason: 'card expired' };
    expect(await run(checkout({ 'payments.authorise': declined }))).toEqual([
      'inventory.reserve',
      'payments.authorise',
      'payments.cancel',
      'inventory.release',
      'reject PAYMENT_DECLINED',
    ]);
  });

  it('waits for the customer where the payment asks for it', async () => {
    const answers = { 'payments.authorise': { id: 'p1', status: 'requires_action' } };
    const waiting = ['inventory.reserve', 'payments.authorise', 'payment:requires_action'];
    expect(await run(checkout(answers))).toEqual(waiting);
    expect(await run(checkout(answers), { authorise: { done: { paymentId: 'p1' } } })).toContain(
      'confirm payment:authorised',
    );
    expect(await run(checkout(answers), { authorise: { refused: 'PAYMENT_DECLINED' } })).toEqual([
      ...waiting,
      'payments.cancel',
      'inventory.release',
      'reject PAYMENT_DECLINED',
    ]);
  });

  it('gives the money back when the reservation is gone', async () => {
    expect(await run(checkout({ 'inventory.commit': refusal('RESERVATION_CLOSED') }))).toEqual([
      'inventory.reserve',
      'payments.authorise',
      'inventory.commit',
      'payments.cancel',
      'inventory.release',
      'reject RESERVATION_CLOSED',
    ]);
  });

  it('undoes everything, newest first, when nothing can be shipped', async () => {
    expect((await run(checkout({ 'shipping.createShipment': refusal('ADDRESS_REFUSED') }))).slice(4)).toEqual([
      'shipping.createShipment',
      'shipping.cancelShipment',
      'payments.cancel',
      'inventory.release',
      'reject ADDRESS_REFUSED',
    ]);
  });

  it('cancels the order when its shipment was stopped', async () => {
    const undone = ['shipping.cancelShipment', 'payments.cancel', 'inventory.release', 'cancel'];
    const before = await run(checkout({ 'shipping.createShipment': refusal('SHIPMENT_CANCELLED') }));
    expect(before.slice(5)).toEqual(undone);
    const after = await run(checkout(), { dispatch: { refused: 'SHIPMENT_CANCELLED' } });
    expect(after.slice(6)).toEqual(undone);
  });

  it('holds no stock longer than it is reserved, and never gives up once the goods have left', () => {
    const steps = checkout().saga.steps as SagaStep<CheckoutData>[];
    const untilSold = steps.slice(0, 3).reduce((sum, { withinMs }) => sum + withinMs!, 0);
    expect(untilSold).toBeLessThan(15 * 60_000);
    expect(steps.map(({ name, withinMs }) => [name, withinMs !== undefined])).toEqual([
      ['reserve', true],
      ['authorise', true],
      ['confirm', true],
      ['ship', true],
      ['dispatch', false],
      ['capture', false],
    ]);
  });
});
