import { DomainError } from '@banyan/kernel';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Account, type Booking, book } from './ledger.js';
import {
  type Payment,
  type PaymentEvent,
  type ProviderWord,
  answerChallenge,
  cancel,
  capture,
  fold,
  noPayment,
  open,
  pendingIntents,
  refund,
  refundable,
  remember,
  settle,
} from './payment.js';

/* Anything that can happen to a payment, in any order: also what makes no sense just then. */
type Step =
  | { do: 'open'; amount: number; outcome: 'authorised' | 'declined' | 'requires_action' }
  | { do: 'answer'; authorised: boolean }
  | { do: 'capture'; outcome: ProviderWord['outcome'] }
  | { do: 'cancel' }
  | { do: 'refund'; amount: number; currency: string }
  | { do: 'settle'; which: number; succeeded: boolean };

const amount = fc.integer({ min: 1, max: 1_000 });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant('open' as const),
    amount,
    outcome: fc.constantFrom(
      'authorised' as const,
      'authorised' as const,
      'declined' as const,
      'requires_action' as const,
    ),
  }),
  fc.record({ do: fc.constant('answer' as const), authorised: fc.boolean() }),
  fc.record({
    do: fc.constant('capture' as const),
    outcome: fc.constantFrom('captured' as const, 'captured' as const, 'voided' as const, 'nothing_to_do' as const),
  }),
  fc.record({ do: fc.constant('cancel' as const) }),
  fc.record({ do: fc.constant('refund' as const), amount, currency: fc.constantFrom('EUR', 'EUR', 'USD') }),
  fc.record({ do: fc.constant('settle' as const), which: fc.nat({ max: 5 }), succeeded: fc.boolean() }),
);

const at = '2026-01-05T10:00:00.000Z';

function decide(payment: Payment, step: Step, currency: string, newId: () => string): PaymentEvent[] {
  const begun = payment.version > 0;
  if (step.do === 'open') {
    if (begun) return [];
    const ask = { orderId: payment.id, customerId: 'customer', amount: { amount: step.amount, currency } };
    return open(ask, { outcome: step.outcome, providerRef: 'ref', actionUrl: 'http://psp.test/3ds' });
  }
  if (!begun) return step.do === 'cancel' ? remember(payment.id, newId()) : [];
  if (step.do === 'answer') return answerChallenge(payment, { authorised: step.authorised, reason: 'no' });
  if (step.do === 'capture') return capture(payment, { outcome: step.outcome, providerRef: 'ref' }, newId);
  if (step.do === 'cancel') return cancel(payment, newId);
  if (step.do === 'refund') return refund(payment, { amount: step.amount, currency: step.currency }, 'broken', newId());
  const intent = payment.intents[step.which];
  return intent ? settle(payment, { intent: intent.kind, intentId: intent.id, succeeded: step.succeeded }) : [];
}

/** Runs the steps on several payments; a refusal is a fine answer, anything else that is thrown is not. */
function run(
  steps: readonly { payment: number; step: Step }[],
  check: (payment: Payment, bookings: Booking[]) => void,
) {
  let last = 0;
  const newId = () => `id-${++last}`;
  const payments = ['EUR', 'USD', 'EUR'].map((currency, i) => ({ currency, now: noPayment(`payment-${i}`, at) }));
  const bookings: Booking[] = [];
  for (const { payment: index, step } of steps) {
    const one = payments[index]!;
    try {
      const booking = book(one.now, decide(one.now, step, one.currency, newId), at, newId);
      one.now = booking.after;
      bookings.push(booking);
    } catch (error) {
      if (!DomainError.is(error)) throw error;
    }
    check(one.now, bookings);
  }
  return { payments: payments.map(({ now }) => now), bookings };
}

// Without `size` fast-check keeps lists near ten steps: too short for a refund that is refused.
const steps = fc.array(fc.record({ payment: fc.nat({ max: 2 }), step }), { minLength: 1, maxLength: 40, size: 'max' });
const runs = { numRuns: 2_000 };

const sums = <K extends string>(bookings: Booking[], by: (entry: Booking['entries'][number]) => K) => {
  const totals = new Map<K, number>();
  for (const entry of bookings.flatMap(({ entries }) => entries))
    totals.set(by(entry), (totals.get(by(entry)) ?? 0) + entry.amount);
  return totals;
};

it('every transaction, and so every currency, sums to zero at every instant', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      run(steps, (_, bookings) => {
        for (const total of sums(bookings, ({ currency }) => currency).values()) expect(total).toBe(0);
        for (const total of sums(bookings, ({ transactionId }) => transactionId).values()) expect(total).toBe(0);
      });
    }),
    runs,
  );
});

it('refunds never exceed captures, and captures never exceed authorisations', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      run(steps, (payment) => {
        expect(payment.refunded).toBeGreaterThanOrEqual(0);
        expect(payment.setAside).toBeGreaterThanOrEqual(0);
        expect(payment.refunded + payment.setAside).toBeLessThanOrEqual(payment.captured);
        expect(payment.captured).toBeLessThanOrEqual(payment.authorised);
        expect(payment.authorised).toBeLessThanOrEqual(payment.amount);
      });
    }),
    runs,
  );
});

it('the accounts say the same as the payments', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      const { payments, bookings } = run(steps, () => {});
      const balance = sums(bookings, ({ account }) => account);
      const total = (of: (payment: Payment) => number) => payments.reduce((sum, payment) => sum + of(payment), 0);
      const expected: Record<Account, number> = {
        authorised_funds: total((p) => (p.status === 'voided' ? 0 : p.authorised - p.captured)),
        merchant_cash: total((p) => p.captured - p.refunded),
        refunds_payable: -total((p) => p.setAside),
        customer_receivable: -total((p) => (p.status === 'voided' ? 0 : p.authorised) - p.refunded - p.setAside),
      };
      for (const [account, amount] of Object.entries(expected))
        expect(balance.get(account as Account) ?? 0).toBe(amount + 0);
    }),
    runs,
  );
});

it('folding the events of a payment gives its snapshot', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      const { payments, bookings } = run(steps, () => {});
      for (const payment of payments) {
        const history = bookings.filter(({ before }) => before.id === payment.id).flatMap(({ events }) => events);
        expect(history.map(({ version }) => version)).toEqual(history.map((_, i) => i + 1));
        if (history.length > 0)
          expect(
            fold(
              payment.id,
              history.map(({ event }) => ({ event, at })),
            ),
          ).toEqual(payment);
      }
    }),
    runs,
  );
});

it('money of a cancelled order never stays: once the provider has answered everything, nothing is held or kept', () => {
  fc.assert(
    fc.property(steps, (steps) => {
      for (let payment of run(steps, () => {}).payments) {
        let last = 0;
        const newId = () => `end-${++last}`;
        if (payment.version === 0) continue;
        payment = book(payment, cancel(payment, newId), at, newId).after;
        for (const { id, kind } of pendingIntents(payment))
          payment = book(payment, settle(payment, { intent: kind, intentId: id, succeeded: true }), at, newId).after;
        expect(refundable(payment)).toBe(0);
        expect(['declined', 'voided', 'refunded', 'cancelled']).toContain(payment.status);
      }
    }),
    runs,
  );
});
