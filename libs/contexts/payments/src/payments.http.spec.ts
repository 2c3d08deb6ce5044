import { newId } from '@banyan/kernel';
import { eventually, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PaymentStore } from './payments.store.js';
import { PaymentsShop, eur } from './payments.spec-support.js';

const test = testDatabase({ contexts: ['payments', 'orders'] });

let shop: PaymentsShop;
let store: PaymentStore;

beforeAll(async () => {
  shop = await PaymentsShop.open(test);
  store = shop.context.app.get(PaymentStore);
});
afterAll(() => shop?.close());

const http = (method: 'GET' | 'POST', url: string, token?: string, body?: object, key?: string) =>
  shop.context.request(method, url, { token, body, headers: key === undefined ? {} : { 'idempotency-key': key } });

describe('over HTTP', () => {
  it('a payment is shown to its customer and to staff, and does not exist for anybody else', async () => {
    const { id, customerId } = await shop.captured();
    const url = `/v1/payments/${id}`;
    expect(await http('GET', url, await shop.context.tokenOf(customerId, 'customer'))).toMatchObject({
      status: 200,
      body: { id, status: 'captured', captured: eur(1000), refunded: eur(0) },
    });
    expect((await http('GET', url, await shop.context.tokenOf(newId(), 'staff'))).status).toBe(200);
    expect(await http('GET', url, await shop.context.tokenOf(newId(), 'customer'))).toMatchObject({
      status: 404,
      body: { code: 'PAYMENT_NOT_FOUND' },
    });
    expect((await http('GET', url)).status).toBe(401);
    expect((await http('GET', '/v1/payments/1', await shop.context.tokenOf(newId(), 'staff'))).status).toBe(400);
  });

  it('a refund is for staff, needs a key, and is made once per key', async () => {
    const { id, customerId } = await shop.captured();
    const url = `/v1/payments/${id}/refunds`;
    const body = { amount: eur(400), reason: 'broken' };
    const staff = await shop.context.tokenOf(newId(), 'staff');
    expect((await http('POST', url, await shop.context.tokenOf(customerId, 'customer'), body, 'k')).status).toBe(403);
    expect((await http('POST', url, staff, body)).status).toBe(400);
    const first = await http('POST', url, staff, body, 'key-1');
    expect(first).toMatchObject({ status: 201, body: { paymentId: id, status: 'pending', ...body } });
    expect((await http('POST', url, staff, body, 'key-1')).body).toEqual(first.body);
    expect((await http('POST', url, staff, { ...body, amount: eur(1) }, 'key-1')).status).toBe(422);
    expect((await http('POST', url, staff, { ...body, amount: eur(601) }, 'key-2')).body).toMatchObject({
      status: 409,
      code: 'REFUND_EXCEEDS_CAPTURE',
    });
    expect((await http('POST', url, staff, { ...body, amount: { amount: 1, currency: 'USD' } }, 'key-3')).status).toBe(
      409,
    );
    expect((await http('POST', url, staff, { ...body, amount: eur(0) }, 'key-4')).status).toBe(400);
    expect((await http('POST', `/v1/payments/${newId()}/refunds`, staff, body, 'key-5')).status).toBe(404);
    await eventually(async () => (await store.find(id))?.status === 'partially_refunded', { timeoutMs: 20_000 });
  });

  it('refunds at the same time never exceed what was taken', async () => {
    const { id } = await shop.captured();
    const staff = await shop.context.tokenOf(newId(), 'admin');
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        http('POST', `/v1/payments/${id}/refunds`, staff, { amount: eur(300), reason: 'broken' }, `many-${i}`),
      ),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 201, 201, ...Array(7).fill(409)]);
    await eventually(async () => (await store.find(id))?.refunded === 900, { timeoutMs: 20_000 });
  });
});
