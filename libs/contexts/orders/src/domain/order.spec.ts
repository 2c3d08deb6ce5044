import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  IllegalMove,
  type OrderCommand,
  type OrderState,
  type OrderStatus,
  acceptedFrom,
  decide,
  evolve,
  mayCancel,
  outcomeOf,
} from './order.js';

const given = (status: OrderStatus) => ({
  when: (command: OrderCommand) => ({
    then: (...facts: string[]) => expect(decide(status, command).map(({ type }) => type)).toEqual(facts),
    thenRefused: () => expect(() => decide(status, command)).toThrow(IllegalMove),
  }),
});
const reject: OrderCommand = { type: 'reject', reason: 'OUT_OF_STOCK' };

describe('An order', () => {
  it('goes from pending to delivered', () => {
    given('pending').when({ type: 'confirm' }).then('OrderConfirmed');
    given('confirmed').when({ type: 'ship' }).then('OrderShipped');
    given('shipped').when({ type: 'deliver' }).then('OrderDelivered');
  });

  it('is rejected with a reason, also after it was confirmed', () => {
    expect(decide('pending', reject)).toEqual([{ type: 'OrderRejected', reason: 'OUT_OF_STOCK' }]);
    given('confirmed').when(reject).then('OrderRejected');
  });

  it.each(['pending', 'confirmed'] as const)('can be cancelled while it is %s', (status) => {
    given(status).when({ type: 'cancel' }).then('OrderCancelled');
    expect(mayCancel(status)).toBe(true);
  });

  it.each(['shipped', 'delivered', 'rejected'] as const)('cannot be cancelled once it is %s', (status) => {
    given(status).when({ type: 'cancel' }).thenRefused();
    expect(mayCancel(status)).toBe(false);
  });

  it('was shipped when it is delivered, whoever tells first', () => {
    given('confirmed').when({ type: 'deliver' }).then('OrderShipped', 'OrderDelivered');
    given('delivered').when({ type: 'ship' }).then();
  });

  it('hears the same thing twice and does nothing', () => {
    given('confirmed').when({ type: 'confirm' }).then();
    given('shipped').when({ type: 'ship' }).then();
    given('delivered').when({ type: 'deliver' }).then();
    given('cancelled').when({ type: 'cancel' }).then();
    given('rejected').when(reject).then();
  });

  it('stays cancelled when its checkout has been undone', () => {
    given('cancelled').when(reject).then();
  });

  it.each(['rejected', 'cancelled'] as const)('that was %s is never confirmed, shipped or delivered', (status) => {
    for (const type of ['confirm', 'ship', 'deliver'] as const) given(status).when({ type }).thenRefused();
  });
});

describe('Whatever happens to an order', () => {
  const command = fc.oneof(
    fc.constantFrom<OrderCommand>({ type: 'confirm' }, { type: 'ship' }, { type: 'deliver' }, { type: 'cancel' }),
    fc.string({ minLength: 1 }).map((reason): OrderCommand => ({ type: 'reject', reason })),
  );
  const final: OrderStatus[] = ['delivered', 'rejected', 'cancelled'];

  it('it is in a legal state, changes only where the table says so, and never leaves a final state', () => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 30 }), (commands) => {
        let state: OrderState = { status: 'pending' };
        const happened: string[] = [];
        for (const command of commands) {
          const before: OrderState = state;
          try {
            // evolve throws on a fact that cannot have happened in that state: that would fail the run.
            const facts = decide(before.status, command);
            state = facts.reduce(evolve, before);
            happened.push(...facts.map(({ type }) => type));
            expect(acceptedFrom(command).includes(before.status)).toBe(facts.length > 0);
            if (facts.length > 0) expect(state.status).toBe(outcomeOf(command));
          } catch (error) {
            if (!(error instanceof IllegalMove)) throw error;
            expect(acceptedFrom(command)).not.toContain(before.status);
          }
          if (final.includes(before.status)) expect(state).toEqual(before);
          if (state.status === 'rejected') expect(state.reason).not.toBe('');
        }
        expect(new Set(happened).size).toBe(happened.length); // nothing is published twice
        if (happened.includes('OrderShipped')) expect(happened).not.toContain('OrderCancelled');
        if (happened.includes('OrderShipped')) expect(happened[0]).toBe('OrderConfirmed');
      }),
      { numRuns: 2_000 },
    );
  });
});
