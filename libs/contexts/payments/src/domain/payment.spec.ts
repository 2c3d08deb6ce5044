import { describe, expect, it } from 'vitest';
import { book } from './ledger.js';
import {
  type Payment,
  type PaymentEvent,
  type ProviderWord,
  answerChallenge,
  cancel,
  capture,
  dueAt,
  fold,
  noPayment,
  open,
  pendingIntents,
  refund,
  remember,
  settle,
} from './payment.js';

const at = '2026-01-05T10:00:00.000Z';
const ask = { orderId: 'order', customerId: 'customer', amount: { amount: 1000, currency: 'EUR' } };
const yes: ProviderWord = { outcome: 'authorised', providerRef: 'ref' };
const challenge: ProviderWord = {
  outcome: 'requires_action',
  providerRef: 'ref',
  actionUrl: 'http://psp.test/3ds/ref',
};
const taken: ProviderWord = { outcome: 'captured', providerRef: 'ref' };
const eur = (amount: number) => ({ amount, currency: 'EUR' });

/** The payment after the decisions of `steps`, each made on what the one before left. */
const given = (...steps: ((payment: Payment) => PaymentEvent[])[]): Payment => {
  let payment = noPayment('payment', at);
  for (const decide of steps) payment = book(payment, decide(payment), at, ids()).after;
  return payment;
};
const ids = () => {
  let last = 0;
  return () => `id-${++last}`;
};
const authorised = () => open(ask, yes);
const challenged = () => open(ask, challenge);
const captured = (payment: Payment) => capture(payment, taken, () => 'back');
const cancelled = (payment: Payment) => cancel(payment, () => 'take-back');
const refunding =
  (amount: number, id = 'refund') =>
  (payment: Payment) =>
    refund(payment, eur(amount), 'broken', id);
const settled =
  (intent: 'void' | 'refund', intentId: string, succeeded = true) =>
  (payment: Payment) =>
    settle(payment, { intent, intentId, succeeded });

describe('a request for money', () => {
  it('is authorised, declined or challenged, as the provider says', () => {
    expect(given(authorised)).toMatchObject({ status: 'authorised', authorised: 1000, providerRef: 'ref', version: 2 });
    expect(given(challenged)).toMatchObject({
      status: 'requires_action',
      authorised: 0,
      actionUrl: challenge.actionUrl,
    });
    expect(given(() => open(ask, { outcome: 'declined', providerRef: 'ref', reason: 'no money' }))).toMatchObject({
      status: 'declined',
      reason: 'no money',
      authorised: 0,
    });
  });
});

describe('a challenge', () => {
  it('that succeeds authorises, one that fails declines', () => {
    const done = given(challenged, (p) => answerChallenge(p, { authorised: true, reason: '' }));
    expect(done).toMatchObject({ status: 'authorised', authorised: 1000, actionUrl: null });
    const failed = given(challenged, (p) => answerChallenge(p, { authorised: false, reason: 'no' }));
    expect(failed).toMatchObject({ status: 'declined', reason: 'no', authorised: 0 });
  });

  it('told a second time changes nothing', () => {
    expect(answerChallenge(given(authorised), { authorised: false, reason: 'late' })).toEqual([]);
  });

  it('is to be asked about after a while', () => {
    expect(dueAt(given(challenged))).toEqual(new Date('2026-01-05T10:00:15.000Z'));
    expect(dueAt(given(authorised))).toBeNull();
  });

  it('of a cancelled order that is answered all the same is voided afterwards', () => {
    const late = given(challenged, cancelled, (p) => answerChallenge(p, { authorised: true, reason: '' }));
    expect(late).toMatchObject({ status: 'authorised', authorised: 1000 });
    expect(pendingIntents(late)).toMatchObject([{ id: 'take-back', kind: 'void' }]);
    const declined = given(challenged, cancelled, (p) => answerChallenge(p, { authorised: false, reason: 'no' }));
    expect(pendingIntents(declined)).toEqual([]);
  });
});

describe('taking the money', () => {
  it('takes all that is authorised, once', () => {
    const payment = given(authorised, captured);
    expect(payment).toMatchObject({ status: 'captured', captured: 1000 });
    expect(captured(payment)).toEqual([]);
  });

  it.each([
    ['that is only challenged', given(challenged), taken],
    ['that is voided', given(authorised, cancelled, settled('void', 'take-back')), taken],
    ['that the provider has voided', given(authorised), { outcome: 'voided', providerRef: 'ref' } as ProviderWord],
  ])('is refused for a payment %s', (_, payment, word) => {
    expect(() => capture(payment, word, () => 'back')).toThrow(
      expect.objectContaining({ code: 'PAYMENT_NOT_AUTHORISED', kind: 'conflict' }),
    );
  });

  it('that overtakes a void gives everything back', () => {
    const payment = given(authorised, cancelled, captured);
    expect(payment).toMatchObject({ status: 'captured', captured: 1000, setAside: 1000 });
    expect(payment.intents).toMatchObject([
      { id: 'take-back', status: 'failed' },
      { id: 'back', kind: 'refund', amount: 1000, status: 'pending' },
    ]);
  });
});

describe('a cancelled order', () => {
  it('has its authorisation voided, also one that is still being challenged', () => {
    for (const begun of [authorised, challenged]) {
      const payment = given(begun, cancelled);
      expect(pendingIntents(payment)).toMatchObject([{ kind: 'void' }]);
      expect(given(begun, cancelled, settled('void', 'take-back'))).toMatchObject({ status: 'voided', captured: 0 });
      expect(cancelled(payment)).toEqual([]);
    }
  });

  it('gets back what was taken and not yet promised', () => {
    const payment = given(authorised, captured, refunding(300), cancelled);
    expect(pendingIntents(payment).map(({ amount }) => amount)).toEqual([300, 700]);
    expect(cancelled(payment)).toEqual([]);
  });

  it('that was never paid for is remembered, and the provider is asked about it', () => {
    const payment = given(() => remember('order', 'take-back'));
    expect(payment).toMatchObject({ orderId: 'order', status: 'cancelled', cancelled: true });
    expect(dueAt(payment)).toEqual(new Date(at));
    expect(given(() => remember('order', 'take-back'), settled('void', 'take-back'))).toMatchObject({
      status: 'cancelled',
    });
  });

  it('whose payment was declined has nothing to take back', () => {
    const payment = given(() => open(ask, { outcome: 'declined', providerRef: null, reason: 'no' }));
    expect(cancelled(payment)).toEqual([]);
  });
});

describe('a refund', () => {
  it('sets its amount aside until the provider has answered', () => {
    const promised = given(authorised, captured, refunding(400));
    expect(promised).toMatchObject({ status: 'captured', refunded: 0, setAside: 400 });
    const paid = given(authorised, captured, refunding(400), settled('refund', 'refund'));
    expect(paid).toMatchObject({ status: 'partially_refunded', refunded: 400, setAside: 0 });
    const refused = given(authorised, captured, refunding(400), settled('refund', 'refund', false));
    expect(refused).toMatchObject({ status: 'captured', refunded: 0, setAside: 0 });
  });

  it('of everything ends the payment', () => {
    const payment = given(authorised, captured, refunding(1000), settled('refund', 'refund'));
    expect(payment.status).toBe('refunded');
  });

  it('of more than is left, promises included, is refused', () => {
    const payment = given(authorised, captured, refunding(400));
    expect(() => refund(payment, eur(601), 'broken', 'again')).toThrow(
      expect.objectContaining({ code: 'REFUND_EXCEEDS_CAPTURE', data: { refundable: 600 } }),
    );
    expect(() => refund(given(authorised), eur(1), 'broken', 'again')).toThrow('At most 0');
  });

  it('in another currency is refused', () => {
    const dollars = { amount: 1, currency: 'USD' };
    expect(() => refund(given(authorised, captured), dollars, 'broken', 'x')).toThrow(
      expect.objectContaining({ code: 'CURRENCY_MISMATCH' }),
    );
  });

  it('answered twice counts once', () => {
    const paid = given(authorised, captured, refunding(400), settled('refund', 'refund'));
    expect(settled('refund', 'refund')(paid)).toEqual([]);
    expect(settled('refund', 'unknown')(paid)).toEqual([]);
    expect(settled('void', 'refund')(given(authorised, captured, refunding(400)))).toEqual([]);
  });
});

it('is folded from its events', () => {
  const events = [...open(ask, yes), { type: 'captured' } as const];
  const history = events.map((event) => ({ event, at }));
  expect(fold('payment', history)).toEqual(given(authorised, captured));
});
