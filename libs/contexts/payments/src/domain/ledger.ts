import { type Payment, type PaymentEvent, apply } from './payment.js';

/**
 * The chart of accounts. Debits are positive, credits negative; per currency all accounts together are zero.
 *
 * | account             | what its balance means                                                          |
 * | ------------------- | ------------------------------------------------------------------------------- |
 * | authorised_funds    | held on customers' cards for us, not yet taken (debit)                          |
 * | merchant_cash       | taken, minus paid back (debit)                                                  |
 * | refunds_payable     | promised to customers, not yet paid back (credit)                               |
 * | customer_receivable | the other side: what customers have committed, minus what was let go (credit)  |
 */
export type Account = 'customer_receivable' | 'authorised_funds' | 'merchant_cash' | 'refunds_payable';

export interface Entry {
  account: Account;
  /** Minor units, never 0. */
  amount: number;
  currency: string;
}

/** Moves `amount` out of one account into another; nothing when the amount is 0. */
function move(from: Account, to: Account, amount: number, currency: string | null): Entry[] {
  if (amount === 0 || currency === null) return [];
  return [
    { account: to, amount, currency },
    { account: from, amount: -amount, currency },
  ];
}

/** What an event moves: one ledger transaction, balanced by construction. `payment` is the payment before it. */
export function entriesOf(payment: Payment, event: PaymentEvent): Entry[] {
  const { currency } = payment;
  switch (event.type) {
    case 'authorised':
      return move('customer_receivable', 'authorised_funds', payment.amount, currency);
    case 'captured':
      return move('authorised_funds', 'merchant_cash', payment.authorised, currency);
    case 'voided':
      return move('authorised_funds', 'customer_receivable', payment.authorised - payment.captured, currency);
    case 'refundRequested':
      return move('refunds_payable', 'customer_receivable', event.amount, currency);
    case 'refunded':
      return move('merchant_cash', 'refunds_payable', promised(payment, event.intentId), currency);
    case 'refundRefused':
      return move('customer_receivable', 'refunds_payable', promised(payment, event.intentId), currency);
    default:
      return [];
  }
}

const promised = (payment: Payment, intentId: string): number =>
  payment.intents.find(({ id }) => id === intentId)?.amount ?? 0;

/** What one command does to a payment: the events it appends, and the ledger entries they make. */
export interface Booking {
  before: Payment;
  after: Payment;
  at: string;
  events: { id: string; version: number; event: PaymentEvent }[];
  entries: (Entry & { id: string; transactionId: string })[];
}

/** Applies `events` to `before` and books what they move; the id of an event is the id of its ledger transaction. */
export function book(before: Payment, events: readonly PaymentEvent[], at: string, newId: () => string): Booking {
  const booking: Booking = { before, after: before, at, events: [], entries: [] };
  for (const event of events) {
    const id = newId();
    for (const entry of entriesOf(booking.after, event))
      booking.entries.push({ id: newId(), transactionId: id, ...entry });
    booking.after = apply(booking.after, event, at);
    booking.events.push({ id, version: booking.after.version, event });
  }
  return booking;
}
