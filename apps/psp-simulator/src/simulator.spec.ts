import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { verifyWebhook } from '@banyan/platform/auth';
import { type PspProcess, eventually, startPsp } from '@banyan/testing';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

/* The real process, killed and started again; the shop is a server that notes what it is told. */
const secret = 'a secret for webhooks in specs';
const told: { body: string; signature: string | undefined }[] = [];
let shopAnswers = 204;
const shop = createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => (body += chunk));
  request.on('end', () => {
    told.push({ body, signature: request.headers['banyan-signature'] as string | undefined });
    response.writeHead(shopAnswers).end();
  });
});
let psp: PspProcess;

beforeAll(async () => {
  await new Promise<void>((listening) => shop.listen(0, '127.0.0.1', listening));
  const hook = `http://127.0.0.1:${(shop.address() as AddressInfo).port}/hook`;
  psp = await startPsp({ PSP_WEBHOOK_URL: hook, PSP_WEBHOOK_SECRET: secret, PSP_HANG_MS: '200' });
});
afterAll(async () => {
  await psp.stop();
  shop.closeAllConnections();
  shop.close();
});
beforeEach(() => {
  told.length = 0;
  shopAnswers = 204;
});

async function post(path: string, key: string | undefined, body: object = {}) {
  const headers = { 'content-type': 'application/json', ...(key !== undefined && { 'idempotency-key': key }) };
  const response = await fetch(psp.url + path, { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}
let orders = 0;
const ask = (token: string, more: object = {}) => {
  const reference = `order-${++orders}`;
  return { key: `key-${reference}`, body: { token, amount: 1000, currency: 'EUR', reference, ...more } };
};
async function authorised(token = 'tok_ok') {
  const { key, body } = ask(token);
  const answer = await post('/authorisations', key, body);
  return { id: answer.body.id as string, reference: body.reference, key, body };
}

describe('an authorisation', () => {
  it('is given, refused or challenged by the token', async () => {
    const ok = ask('tok_ok');
    expect(await post('/authorisations', ok.key, ok.body)).toMatchObject({
      status: 201,
      body: { status: 'authorised' },
    });
    const no = ask('tok_declined');
    expect((await post('/authorisations', no.key, no.body)).body).toMatchObject({
      status: 'declined',
      reason: 'card_declined',
    });
    const secure = ask('tok_3ds');
    expect((await post('/authorisations', secure.key, secure.body)).body).toMatchObject({
      status: 'requires_action',
      actionUrl: expect.stringContaining('/3ds/auth_'),
    });
  });

  it('is made once per key, and the key is bound to its request', async () => {
    const { id, key, body } = await authorised();
    expect(await post('/authorisations', key, body)).toMatchObject({ status: 200, body: { id } });
    expect((await post('/authorisations', key, { ...body, amount: 1 })).status).toBe(422);
    expect((await post('/authorisations', undefined, body)).status).toBe(422);
    expect((await psp.stats()).duplicates).toEqual([]);
  });

  it('of a reference that is charged twice shows in the statistics', async () => {
    const { body, reference } = await authorised();
    await post('/authorisations', 'another key', body);
    expect((await psp.stats()).duplicates).toEqual([reference]);
  });

  it('with tok_timeout is made without an answer, and the second request learns of it', async () => {
    const { key, body } = ask('tok_timeout');
    await expect(post('/authorisations', key, body)).rejects.toThrow('fetch failed');
    const byReference = await fetch(`${psp.url}/authorisations/by-reference/${body.reference}`);
    expect(await byReference.json()).toMatchObject({ status: 'authorised' });
    expect(await post('/authorisations', key, body)).toMatchObject({ status: 200, body: { status: 'authorised' } });
  });
});

describe('money', () => {
  it('is taken and given back within what is there', async () => {
    const { id } = await authorised();
    const at = `/authorisations/${id}`;
    expect((await post(`${at}/refunds`, `${id} early`, { amount: 1 })).status).toBe(409);
    expect((await post(`${at}/captures`, `${id} much`, { amount: 1001 })).status).toBe(409);
    expect((await post(`${at}/captures`, `${id} c`, { amount: 1000 })).body).toMatchObject({ status: 'captured' });
    expect((await post(`${at}/voids`, `${id} v`)).body).toMatchObject({
      status: 'captured',
      error: expect.any(String),
    });
    expect((await post(`${at}/refunds`, `${id} r1`, { amount: 600 })).status).toBe(201);
    expect((await post(`${at}/refunds`, `${id} r1`, { amount: 600 })).body).toMatchObject({ refunded: 600 });
    expect((await post(`${at}/refunds`, `${id} r2`, { amount: 401 })).status).toBe(409);
  });

  it('is let go by a void, once', async () => {
    const { id } = await authorised();
    const before = (await psp.stats()).totals.EUR!.voided;
    for (const status of [201, 200]) expect((await post(`/authorisations/${id}/voids`, `${id} v`)).status).toBe(status);
    expect((await psp.stats()).totals.EUR!.voided).toBe(before + 1000);
    expect((await post(`/authorisations/${id}/captures`, `${id} c`, { amount: 1 })).status).toBe(409);
  });
});

describe('a challenge', () => {
  it('is a page that a browser shows and sends back', async () => {
    const { id } = await authorised('tok_3ds');
    const page = await fetch(`${psp.url}/3ds/${id}`, { headers: { accept: 'text/html' } });
    expect(await page.text()).toContain('€10.00');
    const form = {
      method: 'POST',
      body: new URLSearchParams({ outcome: 'failure' }),
      headers: { accept: 'text/html' },
    };
    expect(await (await fetch(`${psp.url}/3ds/${id}`, form)).text()).toContain('Declined');
    expect((await post(`/3ds/${id}`, undefined, { outcome: 'success' })).status).toBe(409);
    await eventually(() => told.length === 1);
  });

  it('is told by a signed webhook, again until it is taken', async () => {
    shopAnswers = 503;
    const { id } = await authorised('tok_3ds');
    await post(`/3ds/${id}`, undefined, { outcome: 'success' });
    await eventually(() => told.length >= 2);
    shopAnswers = 204;
    const seen = told.length;
    await eventually(() => told.length > seen);
    for (const { body, signature } of told) verifyWebhook(secret, signature, body);
    const [first, ...others] = told.map(({ body }) => JSON.parse(body) as { eventId: string });
    expect(first).toMatchObject({ type: 'payment.authorised', providerRef: id });
    expect(new Set(others.map(({ eventId }) => eventId))).toEqual(new Set([first!.eventId]));
  });

  it('is told after a kill -9, too', async () => {
    shopAnswers = 503;
    const { id } = await authorised('tok_3ds');
    await post(`/3ds/${id}`, undefined, { outcome: 'success' });
    await eventually(() => told.length >= 1);
    await psp.restart();
    shopAnswers = 204;
    told.length = 0;
    await eventually(() => told.some(({ body }) => body.includes(id)));
  });
});

it('a kill -9 loses nothing that was answered', async () => {
  const answered: string[] = [];
  const buying = Array.from({ length: 8 }, async () => {
    for (;;) {
      const { key, body } = ask('tok_ok');
      const answer = await post('/authorisations', key, body).catch(() => undefined);
      if (!answer) return;
      answered.push(body.reference);
    }
  });
  await eventually(() => answered.length > 100);
  await psp.kill();
  await Promise.all(buying);
  await psp.restart();
  const found = await Promise.all(
    answered.map((reference) =>
      fetch(`${psp.url}/authorisations/by-reference/${reference}`).then(({ status }) => status),
    ),
  );
  expect(new Set(found)).toEqual(new Set([200]));
});
