import type { z } from 'zod';
import type { Money } from '@banyan/kernel';
import { type PaymentStatus, payments } from '@banyan/contracts';

/** What can happen to a payment. These rows are the truth; a payment is what they fold to. */
export type PaymentEvent =
  | { type: 'opened'; orderId: string; customerId: string; amount: Money }
  | { type: 'challenged'; providerRef: string; actionUrl: string }
  | { type: 'authorised'; providerRef: string }
  | { type: 'declined'; providerRef: string | null; reason: string }
  | { type: 'captured' }
  /** First event of an order that nobody had asked to pay for: a later request is refused. */
  | { type: 'cancelled'; orderId: string }
  | { type: 'voidRequested'; intentId: string }
  | { type: 'voided'; intentId: string }
  | { type: 'voidRefused'; intentId: string }
  | { type: 'refundRequested'; intentId: string; amount: number; reason: string }
  | { type: 'refunded'; intentId: string }
  | { type: 'refundRefused'; intentId: string };

/** Something the provider is to be asked for. `at` is when it was decided. */
export interface Intent {
  id: string;
  kind: 'void' | 'refund';
  status: 'pending' | 'succeeded' | 'failed';
  /** Minor units to give back; 0 for a void. */
  amount: number;
  reason: string;
  at: string;
}

/** Amounts are minor units of `currency`. Always: refunded + setAside <= captured <= authorised <= amount. */
export interface Payment {
  id: string;
  orderId: string;
  /** Null when the order was cancelled before its money was asked for. */
  customerId: string | null;
  /** `cancelled` is only for those orders; a payment that was asked for ends as voided or refunded. */
  status: z.output<typeof PaymentStatus> | 'cancelled';
  currency: string | null;
  amount: number;
  authorised: number;
  captured: number;
  refunded: number;
  setAside: number;
  providerRef: string | null;
  actionUrl: string | null;
  reason: string | null;
  /** The order wants its money back, whatever is reached. */
  cancelled: boolean;
  intents: Intent[];
  version: number;
  createdAt: string;
}

const blank = (id: string, at: string): Payment => ({
  id,
  orderId: '',
  customerId: null,
  status: 'requires_action',
  currency: null,
  amount: 0,
  authorised: 0,
  captured: 0,
  refunded: 0,
  setAside: 0,
  providerRef: null,
  actionUrl: null,
  reason: null,
  cancelled: false,
  intents: [],
  version: 0,
  createdAt: at,
});

const answered = (intents: Intent[], id: string, status: 'succeeded' | 'failed'): Intent[] =>
  intents.map((intent) => (intent.id === id ? { ...intent, status } : intent));

const amountOf = (payment: Payment, intentId: string): number =>
  payment.intents.find(({ id }) => id === intentId)?.amount ?? 0;

/** The payment after one more event that happened at `at` (RFC 3339). */
export function apply(payment: Payment, event: PaymentEvent, at: string): Payment {
  return { ...payment, version: payment.version + 1, ...changes(payment, event, at) };
}

function changes(payment: Payment, event: PaymentEvent, at: string): Partial<Payment> {
  switch (event.type) {
    case 'opened':
      return {
        orderId: event.orderId,
        customerId: event.customerId,
        amount: event.amount.amount,
        currency: event.amount.currency,
      };
    case 'challenged':
      return { status: 'requires_action', providerRef: event.providerRef, actionUrl: event.actionUrl };
    case 'authorised':
      return { status: 'authorised', providerRef: event.providerRef, authorised: payment.amount, actionUrl: null };
    case 'declined':
      return {
        status: 'declined',
        providerRef: event.providerRef,
        reason: event.reason,
        actionUrl: null,
        // Nothing is held, so a void that was waiting has got what it wanted.
        intents: payment.intents.map((intent) =>
          intent.status === 'pending' ? { ...intent, status: 'succeeded' } : intent,
        ),
      };
    case 'captured':
      return { status: 'captured', captured: payment.authorised };
    case 'cancelled':
      return { orderId: event.orderId, status: 'cancelled', cancelled: true };
    case 'voidRequested':
      return {
        cancelled: true,
        intents: [
          ...payment.intents,
          { id: event.intentId, kind: 'void', status: 'pending', amount: 0, reason: 'order cancelled', at },
        ],
      };
    case 'voided':
      return {
        status: payment.status === 'cancelled' ? 'cancelled' : 'voided',
        actionUrl: null,
        intents: answered(payment.intents, event.intentId, 'succeeded'),
      };
    case 'voidRefused':
      return { intents: answered(payment.intents, event.intentId, 'failed') };
    case 'refundRequested':
      return {
        setAside: payment.setAside + event.amount,
        intents: [
          ...payment.intents,
          { id: event.intentId, kind: 'refund', status: 'pending', amount: event.amount, reason: event.reason, at },
        ],
      };
    case 'refunded': {
      const amount = amountOf(payment, event.intentId);
      const refunded = payment.refunded + amount;
      return {
        status: refunded === payment.captured ? 'refunded' : 'partially_refunded',
        refunded,
        setAside: payment.setAside - amount,
        intents: answered(payment.intents, event.intentId, 'succeeded'),
      };
    }
    case 'refundRefused':
      return {
        setAside: payment.setAside - amountOf(payment, event.intentId),
        intents: answered(payment.intents, event.intentId, 'failed'),
      };
  }
}

/** A payment rebuilt from all its events, in the order of their versions. */
export const fold = (id: string, history: readonly { event: PaymentEvent; at: string }[]): Payment =>
  history.reduce((payment, { event, at }) => apply(payment, event, at), blank(id, history[0]?.at ?? ''));

/** A payment that has not begun. */
export const noPayment = blank;

export const pendingIntents = (payment: Payment): Intent[] =>
  payment.intents.filter(({ status }) => status === 'pending');

/** What may still be given back: captured, and neither refunded nor promised. */
export const refundable = (payment: Payment): number => payment.captured - payment.refunded - payment.setAside;

/** What the provider said of an order's money. */
export interface ProviderWord {
  outcome: 'authorised' | 'declined' | 'requires_action' | 'captured' | 'voided' | 'nothing_to_do';
  providerRef: string | null;
  reason?: string | undefined;
  actionUrl?: string | undefined;
}

/** A first request for money, with the provider's word on it. */
export function open(ask: { orderId: string; customerId: string; amount: Money }, word: ProviderWord): PaymentEvent[] {
  const opened: PaymentEvent = { type: 'opened', ...ask };
  if (word.outcome === 'authorised' && word.providerRef)
    return [opened, { type: 'authorised', providerRef: word.providerRef }];
  if (word.outcome === 'requires_action' && word.providerRef && word.actionUrl)
    return [opened, { type: 'challenged', providerRef: word.providerRef, actionUrl: word.actionUrl }];
  if (word.outcome === 'declined' || word.outcome === 'voided')
    return [opened, { type: 'declined', providerRef: word.providerRef, reason: word.reason ?? word.outcome }];
  throw new Error(`A request for money cannot come to '${word.outcome}'`);
}

/** An order cancelled before it was paid for. The provider may still hold money: whoever asked has not come back. */
export const remember = (orderId: string, intentId: string): PaymentEvent[] => [
  { type: 'cancelled', orderId },
  { type: 'voidRequested', intentId },
];

/** The customer answered (or failed) the challenge. Told twice, or too late, nothing happens. */
export function answerChallenge(payment: Payment, word: { authorised: boolean; reason: string }): PaymentEvent[] {
  if (payment.status !== 'requires_action' || !payment.providerRef) return [];
  const { providerRef } = payment;
  return word.authorised
    ? [{ type: 'authorised', providerRef }]
    : [{ type: 'declined', providerRef, reason: word.reason }];
}

/**
 * The provider has taken the money. If the order was cancelled meanwhile, the void comes too late and everything is
 * to be given back. Throws PAYMENT_NOT_AUTHORISED when there is nothing to take.
 */
export function capture(payment: Payment, word: ProviderWord, newId: () => string): PaymentEvent[] {
  if (payment.captured > 0) return [];
  if (payment.status !== 'authorised' || word.outcome !== 'captured') {
    const is = word.outcome === 'nothing_to_do' ? payment.status : word.outcome;
    throw payments.fail('PAYMENT_NOT_AUTHORISED', `The payment is ${is}`);
  }
  const late = pendingIntents(payment).map(({ id }): PaymentEvent => ({ type: 'voidRefused', intentId: id }));
  const back: PaymentEvent[] = payment.cancelled ? [giveBack(newId(), payment.authorised)] : [];
  return [{ type: 'captured' }, ...late, ...back];
}

const giveBack = (intentId: string, amount: number): PaymentEvent => ({
  type: 'refundRequested',
  intentId,
  amount,
  reason: 'order cancelled',
});

/** The order wants its money back. Asked twice, nothing more happens. */
export function cancel(payment: Payment, newId: () => string): PaymentEvent[] {
  if (payment.status === 'requires_action' || payment.status === 'authorised')
    return pendingIntents(payment).length > 0 ? [] : [{ type: 'voidRequested', intentId: newId() }];
  const amount = refundable(payment);
  return amount > 0 ? [giveBack(newId(), amount)] : [];
}

/** Promises a refund. Throws CURRENCY_MISMATCH or REFUND_EXCEEDS_CAPTURE. */
export function refund(payment: Payment, amount: Money, reason: string, intentId: string): PaymentEvent[] {
  if (amount.currency !== payment.currency)
    throw payments.fail('CURRENCY_MISMATCH', `The payment is in ${payment.currency}`, { currency: payment.currency });
  const left = refundable(payment);
  if (amount.amount > left)
    throw payments.fail('REFUND_EXCEEDS_CAPTURE', `At most ${left} can still be refunded`, { refundable: left });
  return [{ type: 'refundRequested', intentId, amount: amount.amount, reason }];
}

/** How the provider answered an intent. An intent that is unknown or answered already changes nothing. */
export function settle(
  payment: Payment,
  answer: { intent: Intent['kind']; intentId: string; succeeded: boolean },
): PaymentEvent[] {
  const intent = payment.intents.find(({ id, kind }) => id === answer.intentId && kind === answer.intent);
  if (intent?.status !== 'pending') return [];
  const { intentId, succeeded } = answer;
  if (intent.kind === 'void') return [{ type: succeeded ? 'voided' : 'voidRefused', intentId }];
  return [{ type: succeeded ? 'refunded' : 'refundRefused', intentId }];
}

/** How long a customer may take over a challenge, ms, before we ask the provider: its webhook may have been lost. */
const challengePatienceMs = 15_000;

/** From when on the provider is to be asked about this payment; null when nothing is open there. */
export function dueAt(payment: Payment): Date | null {
  const [waiting] = pendingIntents(payment);
  if (waiting) return new Date(waiting.at);
  if (payment.status !== 'requires_action') return null;
  return new Date(Date.parse(payment.createdAt) + challengePatienceMs);
}
