import { newId } from '@banyan/kernel';
import { eventually } from '@banyan/testing';
import { describe, expect, it } from 'vitest';
import { everythingAddsUp, everythingEnds } from '../shop/invariants.js';
import { everyPlacement, openShop } from '../shop/shop.js';
import type { Visitor } from '../shop/visitor.js';

describe.each(everyPlacement)('A refund, %s', (placement) => {
  const shop = openShop({ placement });

  /** Somebody who has paid 30.00 EUR for a parcel that is on its way. */
  async function paid(): Promise<{ buyer: Visitor; orderId: string; paymentId: string }> {
    const buyer = await shop.guest();
    const orderId = await buyer.buy(await shop.offer({ amount: 1500 }), { quantity: 2 });
    await shop.ship(buyer, orderId);
    const { payment } = await buyer.until(orderId, (order) => order.payment.status === 'captured');
    return { buyer, orderId, paymentId: payment.id };
  }
  const refund = async (paymentId: string, amount: number, { currency = 'EUR', key = newId() as string } = {}) =>
    (await shop.staff()).post(
      `/v1/payments/${paymentId}/refunds`,
      { amount: { amount, currency }, reason: 'arrived broken' },
      { 'idempotency-key': key },
    );
  const settled = (buyer: Visitor, paymentId: string, refunded: number) =>
    eventually(
      async () => {
        const { body } = (await buyer.get(`/v1/payments/${paymentId}`)).expect(200);
        expect(body.refunded).toEqual({ amount: refunded, currency: 'EUR' });
        return body;
      },
      { timeoutMs: 15_000 },
    );

  it('of a part goes back to the customer, and the order shows it', async () => {
    const { buyer, orderId, paymentId } = await paid();
    const answer = (await refund(paymentId, 1000)).expect(201).body;
    expect(answer).toMatchObject({ paymentId, amount: { amount: 1000, currency: 'EUR' }, reason: 'arrived broken' });
    expect(await settled(buyer, paymentId, 1000)).toMatchObject({ status: 'partially_refunded' });
    await buyer.until(orderId, (order) => order.payment.status === 'partially_refunded');
    await everythingAddsUp(shop);
  });

  it('of all of it, in two parts', async () => {
    const { buyer, paymentId } = await paid();
    (await refund(paymentId, 1000)).expect(201);
    (await refund(paymentId, 2000)).expect(201);
    expect(await settled(buyer, paymentId, 3000)).toMatchObject({ status: 'refunded' });
    await everythingAddsUp(shop);
  });

  it('of more than was captured is refused, also when many ask at once', async () => {
    const { buyer, paymentId } = await paid();
    expect((await refund(paymentId, 3001)).problem(409)).toBe('REFUND_EXCEEDS_CAPTURE');
    const answers = await Promise.all(Array.from({ length: 10 }, () => refund(paymentId, 1000)));
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(3);
    for (const answer of answers.filter(({ status }) => status !== 201))
      expect(answer.problem(409)).toBe('REFUND_EXCEEDS_CAPTURE');
    await settled(buyer, paymentId, 3000);
    expect((await refund(paymentId, 1)).problem(409)).toBe('REFUND_EXCEEDS_CAPTURE');
    await everythingAddsUp(shop);
  });

  it('asked for twice with one key happens once', async () => {
    const { buyer, paymentId } = await paid();
    const key = newId();
    const staff = await shop.staff();
    const body = { amount: { amount: 700, currency: 'EUR' }, reason: 'late' };
    const ask = () => staff.post(`/v1/payments/${paymentId}/refunds`, body, { 'idempotency-key': key });
    const first = (await ask()).expect(201);
    const second = (await ask()).expect(201);
    expect(second.text).toBe(first.text);
    expect(second.headers['idempotent-replayed']).toBe('true');
    await settled(buyer, paymentId, 700);
    await everythingAddsUp(shop);
  });

  it('in another currency, of nothing, without a key, of nobody’s payment, or by a customer is refused', async () => {
    const { buyer, paymentId } = await paid();
    expect((await refund(paymentId, 100, { currency: 'USD' })).problem(409)).toBe('CURRENCY_MISMATCH');
    expect((await refund(paymentId, 0)).problem(400)).toBe('INPUT_INVALID');
    expect((await refund(newId(), 100)).problem(404)).toBe('PAYMENT_NOT_FOUND');
    const body = { amount: { amount: 100, currency: 'EUR' }, reason: 'mine' };
    const keyless = await (await shop.staff()).post(`/v1/payments/${paymentId}/refunds`, body);
    expect(keyless.problem(400)).toBe('IDEMPOTENCY_KEY_REQUIRED');
    const own = await buyer.post(`/v1/payments/${paymentId}/refunds`, body, { 'idempotency-key': newId() });
    expect(own.problem(403)).toBe('FORBIDDEN');
    await everythingAddsUp(shop);
    await settled(buyer, paymentId, 0);
  });

  it('leaves nothing open and nothing wrong', () => everythingEnds(shop));
});
