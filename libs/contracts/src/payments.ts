import { Id, Money, command, defineContext, drawn, event, query } from '@banyan/kernel';
import { z } from 'zod';
import { Instant, NOBODY } from './common.js';
import { PaymentMethod, orders } from './orders.js';

export const PaymentStatus = z.enum([
  'requires_action',
  'authorised',
  'declined',
  'captured',
  'partially_refunded',
  'refunded',
  'voided',
]);

export const Payment = z
  .strictObject({
    id: Id,
    orderId: Id,
    status: PaymentStatus,
    amount: Money,
    captured: Money,
    refunded: Money,
    /** Where the customer answers a 3-D Secure challenge; only while `requires_action`. */
    actionUrl: z.url().optional(),
  })
  .meta({ id: 'Payment' });

export const Refund = z
  .strictObject({
    id: Id,
    paymentId: Id,
    amount: Money,
    reason: z.string(),
    status: z.enum(['pending', 'succeeded', 'failed']),
    createdAt: Instant,
  })
  .meta({ id: 'Refund' });

/** What the provider said. Asked before the transaction; the command only writes it down. */
const ProviderAnswer = z.strictObject({
  outcome: z.enum(['authorised', 'declined', 'requires_action', 'captured', 'voided', 'nothing_to_do']),
  providerRef: z.string().nullable(),
  reason: z.string().optional(),
  actionUrl: z.url().optional(),
});

const PaymentRef = z.strictObject({ paymentId: Id, orderId: Id });

export const payments = defineContext('payments', {
  routes: ['/v1/payments', '/v1/webhooks/psp'],
  reads: { 'GET /v1/payments/{id}': { query: 'payment' } },
  keyed: ['POST /v1/payments/{id}/refunds'],
  queries: {
    payment: query({
      input: z.strictObject({ id: Id }),
      output: Payment,
      errors: { PAYMENT_NOT_FOUND: 'not_found' },
      examples: [{ id: NOBODY }],
      drawn: drawn(orders.queries.orders, { limit: 20 }, ({ items }) =>
        items.flatMap(({ payment }) => (payment ? [{ input: { id: payment.id } }] : [])),
      ),
    }),
  },
  commands: {
    /** Asks for the money of an order. Asked again for the same order: the same payment. */
    authorise: command({
      repeatable: true,
      input: z.strictObject({ orderId: Id, customerId: Id, amount: Money, method: PaymentMethod }),
      output: Payment.extend({ reason: z.string().optional() }),
      key: (i) => i.orderId,
      prepared: ProviderAnswer,
      errors: { PAYMENT_CANCELLED: 'conflict', PROVIDER_UNAVAILABLE: 'unavailable' },
    }),
    capture: command({
      repeatable: true,
      input: z.strictObject({ orderId: Id }),
      output: Payment,
      key: (i) => i.orderId,
      prepared: ProviderAnswer,
      errors: {
        PAYMENT_NOT_FOUND: 'not_found',
        PAYMENT_NOT_AUTHORISED: 'conflict',
        PROVIDER_UNAVAILABLE: 'unavailable',
      },
    }),
    /** Takes the money back, whatever was reached: void, or full refund. Unknown orders are remembered as cancelled. */
    cancel: command({
      repeatable: true,
      input: z.strictObject({ orderId: Id }),
      output: z.strictObject({ orderId: Id, status: z.enum(['pending', 'done']) }),
      key: (i) => i.orderId,
    }),
    /** Records a refund and sets its amount aside; the provider is asked afterwards. */
    refund: command({
      input: z.strictObject({
        paymentId: Id,
        amount: Money.refine((m) => m.amount > 0, 'must be positive'),
        reason: z.string().trim().min(1).max(500),
      }),
      output: Refund,
      key: (i) => i.paymentId,
      errors: { PAYMENT_NOT_FOUND: 'not_found', REFUND_EXCEEDS_CAPTURE: 'conflict', CURRENCY_MISMATCH: 'conflict' },
    }),
    /** Writes down how the provider answered a void or refund that was waiting. */
    settle: command({
      repeatable: true,
      input: z.strictObject({
        paymentId: Id,
        intent: z.enum(['void', 'refund']),
        intentId: Id,
        succeeded: z.boolean(),
      }),
      output: z.strictObject({ settled: z.boolean() }),
      key: (i) => i.paymentId,
      errors: { PAYMENT_NOT_FOUND: 'not_found' },
    }),
    /** A provider's webhook, its signature already checked. Told twice, it counts once. */
    recordProviderEvent: command({
      input: z.strictObject({
        eventId: z.string().min(1).max(200),
        type: z.enum(['payment.authorised', 'payment.declined']),
        providerRef: z.string(),
        reason: z.string().optional(),
      }),
      output: z.strictObject({ recorded: z.boolean() }),
      key: (i) => i.providerRef,
    }),
  },
  events: {
    PaymentAuthorised: event(1, 'payment', PaymentRef.extend({ amount: Money })),
    /** The customer has answered a challenge: authorised, but later than `authorise` could tell. */
    ChallengePassed: event(1, 'payment', PaymentRef),
    PaymentDeclined: event(1, 'payment', PaymentRef.extend({ reason: z.string() })),
    /** Captured, refunded or voided: what a reader of payments shows. */
    PaymentChanged: event(1, 'payment', PaymentRef.extend({ status: PaymentStatus, captured: Money, refunded: Money })),
  },
  subscribes: ['orders.OrderCancelled'],
});
