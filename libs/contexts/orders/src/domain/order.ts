import type { OrderStatus as OrderStatusSchema } from '@banyan/contracts';
import type { z } from 'zod';

export type OrderStatus = z.output<typeof OrderStatusSchema>;

/** An order's life. Only a rejected one has a reason: the code of what failed, such as OUT_OF_STOCK. */
export type OrderState =
  | { status: 'pending' }
  | { status: 'confirmed' }
  | { status: 'shipped' }
  | { status: 'delivered' }
  | { status: 'rejected'; reason: string }
  | { status: 'cancelled' };

export type OrderCommand =
  | { type: 'confirm' }
  | { type: 'ship' }
  | { type: 'deliver' }
  | { type: 'reject'; reason: string }
  | { type: 'cancel' };

export type OrderFact =
  | { type: 'OrderConfirmed' }
  | { type: 'OrderShipped' }
  | { type: 'OrderDelivered' }
  | { type: 'OrderRejected'; reason: string }
  | { type: 'OrderCancelled' };

/** A command met an order in a status from which it may never be done. */
export class IllegalMove extends Error {
  override readonly name = 'IllegalMove';
  constructor(
    readonly status: OrderStatus,
    readonly command: OrderCommand['type'],
  ) {
    super(`An order that is ${status} cannot ${command}`);
  }
}

/**
 * The transition table: what happens when a command meets an order in a status. An empty list: it is so already, or
 * has come later than what made it pointless. No entry: an illegal move.
 */
const transitions: Record<OrderCommand['type'], Partial<Record<OrderStatus, OrderFact['type'][]>>> = {
  confirm: { pending: ['OrderConfirmed'], confirmed: [], shipped: [], delivered: [] },
  ship: { confirmed: ['OrderShipped'], shipped: [], delivered: [] },
  // The carrier's word may come before the saga has noted the dispatch: what was delivered has been shipped.
  deliver: { confirmed: ['OrderShipped', 'OrderDelivered'], shipped: ['OrderDelivered'], delivered: [] },
  reject: { pending: ['OrderRejected'], confirmed: ['OrderRejected'], rejected: [], cancelled: [] },
  cancel: { pending: ['OrderCancelled'], confirmed: ['OrderCancelled'], cancelled: [] },
};

const outcomes = {
  confirm: 'confirmed',
  ship: 'shipped',
  deliver: 'delivered',
  reject: 'rejected',
  cancel: 'cancelled',
} as const satisfies Record<OrderCommand['type'], OrderStatus>;

/** The status that a command leads to, from wherever it is accepted. */
export const outcomeOf = (command: OrderCommand): OrderStatus => outcomes[command.type];

/** What happens when `command` meets an order in `status`; nothing, when it is so already. Throws IllegalMove. */
export function decide(status: OrderStatus, command: OrderCommand): OrderFact[] {
  const facts = transitions[command.type][status];
  if (!facts) throw new IllegalMove(status, command.type);
  return facts.map((type) => (type === 'OrderRejected' ? { type, reason: reasonOf(command) } : { type }));
}

const reasonOf = (command: OrderCommand): string => (command.type === 'reject' ? command.reason : '');

/** The statuses in which `command` changes something: what a conditional update asks for. */
export const acceptedFrom = (command: OrderCommand): OrderStatus[] =>
  Object.entries(transitions[command.type]).flatMap(([status, facts]) =>
    facts.length > 0 ? [status as OrderStatus] : [],
  );

export const mayCancel = (status: OrderStatus): boolean => acceptedFrom({ type: 'cancel' }).includes(status);

/** The state after a fact. Throws on a fact that cannot have happened there. */
export function evolve(state: OrderState, fact: OrderFact): OrderState {
  const impossible = () => new Error(`${fact.type} cannot have happened to an order that is ${state.status}`);
  const after = (from: OrderStatus[], next: OrderState): OrderState => {
    if (!from.includes(state.status)) throw impossible();
    return next;
  };
  switch (fact.type) {
    case 'OrderConfirmed':
      return after(['pending'], { status: 'confirmed' });
    case 'OrderShipped':
      return after(['confirmed'], { status: 'shipped' });
    case 'OrderDelivered':
      return after(['shipped'], { status: 'delivered' });
    case 'OrderRejected':
      return after(['pending', 'confirmed'], { status: 'rejected', reason: fact.reason });
    case 'OrderCancelled':
      return after(['pending', 'confirmed'], { status: 'cancelled' });
  }
}
