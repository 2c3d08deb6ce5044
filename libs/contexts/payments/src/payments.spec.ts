import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Module } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { orders, payments } from '@banyan/contracts';
import { Id, type Role, command, defineContext, newId } from '@banyan/kernel';
import {
  type Client,
  type CommandContext,
  type Handlers,
  MessagingModule,
  Serves,
  clientToken,
  newScope,
  runInScope,
} from '@banyan/messaging';
import { AuthModule, TokenSigner, signWebhook } from '@banyan/platform/auth';
import { loadConfig } from '@banyan/platform/config';
import { Database, DatabaseModule, databaseToken } from '@banyan/platform/database';
import { createHttpApp, shutDown } from '@banyan/platform/http';
import { type PspProcess, eventually, startPsp, testDatabase } from '@banyan/testing';
import { exportJWK, generateKeyPair } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { book } from './domain/ledger.js';
import { fold, noPayment } from './domain/payment.js';
import { PaymentsModule } from './payments.module.js';
import { PaymentStore } from './payments.store.js';
import { Settlement } from './payments.settlement.js';

/* Real: Postgres, the messaging engine, HTTP, the provider simulator's process. Orders is a stand-in that only cancels. */
const ordering = defineContext('orders', {
  routes: [],
  queries: {},
  commands: {
    cancel: command({ input: z.strictObject({ orderId: Id }), output: z.strictObject({}), key: (i) => i.orderId }),
  },
  events: { OrderCancelled: orders.events.OrderCancelled },
  subscribes: [],
});

@Serves(ordering)
class Ordering implements Handlers<typeof ordering> {
  async cancel({ orderId }: { orderId: string }, ctx: CommandContext) {
    ctx.emit(ordering.events.OrderCancelled, orderId, { orderId, customerId: ctx.newId() });
    return {};
  }
}

const test = testDatabase({ contexts: ['payments', 'orders'] });
const secret = 'a secret for webhooks in specs';

/** The wire that webhooks come by. It can lose them, and it remembers them. */
const wire = { lost: false, hooks: [] as { body: string; signature: string }[] };
const relay = createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) body += String(chunk);
  const hook = { body, signature: String(request.headers['banyan-signature']) };
  if (wire.lost) return response.writeHead(204).end();
  wire.hooks.push(hook);
  response.writeHead(await tell(hook)).end();
});

let app: NestFastifyApplication;
let psp: PspProcess;
let client: Client<typeof payments>;
let store: PaymentStore;
let settlement: Settlement;
let tokenOf: (id: string, ...roles: Role[]) => Promise<string>;

beforeAll(async () => {
  await new Promise<void>((listening) => relay.listen(0, '127.0.0.1', listening));
  const hook = `http://127.0.0.1:${(relay.address() as AddressInfo).port}/`;
  psp = await startPsp({ PSP_WEBHOOK_URL: hook, PSP_WEBHOOK_SECRET: secret });
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const keys = [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' }];
  const config = loadConfig({ PSP_URL: psp.url, PSP_WEBHOOK_SECRET: secret, PSP_TIMEOUT_MS: '500' });
  const signer = new TokenSigner(config.auth);
  const privateJwk = { ...(await exportJWK(privateKey)), kid: 'k1', alg: 'ES256' };
  tokenOf = (id, ...roles) => signer.sign({ id, roles }, privateJwk);

  @Module({
    imports: [
      DatabaseModule.forRoot({ urls: test.urls, max: 10 }),
      MessagingModule.forRoot({
        contracts: [payments, ordering],
        side: 'monolith',
        jobs: { connectionString: test.adminUrl, schema: 'jobs' },
      }),
      AuthModule.with({ keySource: () => async () => ({ keys }) }),
      PaymentsModule,
    ],
    providers: [Ordering],
  })
  class Shop {}
  app = await createHttpApp(Shop, config, {
    logger: false,
    requestScope: (_, actor, next) => runInScope(newScope(actor), next),
  });
  await app.init();
  client = app.get(clientToken(payments), { strict: false });
  store = app.get(PaymentStore, { strict: false });
  settlement = app.get(Settlement, { strict: false });
});
afterAll(async () => {
  relay.closeAllConnections();
  relay.close();
  if (app) await shutDown(app, 1_000);
  await psp?.stop();
});

const of = ({ orderId }: { orderId: string }) => ({ orderId });
const eur = (amount: number) => ({ amount, currency: 'EUR' });
const ask = (method = 'tok_ok', amount = 1000) => ({
  orderId: newId(),
  customerId: newId(),
  amount: eur(amount),
  method,
});

/** The sweep as it will run after `ms`: nothing here sleeps. */
const settleAfter = (ms: number) => settlement.settle({ now: new Date(Date.now() + ms) });
const statusOf = async (orderId: string) => (await store.ofOrder(orderId))?.status;

async function tell({ body, signature }: { body: string; signature?: string }): Promise<number> {
  const headers = { 'content-type': 'application/json', ...(signature && { 'banyan-signature': signature }) };
  return (await app.inject({ method: 'POST', url: '/v1/webhooks/psp', payload: body, headers })).statusCode;
}

async function http(method: 'GET' | 'POST', url: string, token?: string, payload?: object, key?: string) {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(key && { 'idempotency-key': key }) };
  const answer = await app.inject({ method, url, payload, headers });
  return { status: answer.statusCode, body: answer.body ? answer.json() : undefined, headers: answer.headers };
}

async function captured(amount = 1000) {
  const order = ask('tok_ok', amount);
  const { id } = await client.authorise(order);
  await client.capture(of(order));
  return { ...order, id };
}

const answerChallenge = (providerRef: string, outcome: 'success' | 'failure') =>
  fetch(`${psp.url}/3ds/${providerRef}`, { method: 'POST', body: JSON.stringify({ outcome }) });

const emitted = (paymentId: string) =>
  test
    .admin<{ type: string }>('select type from payments.outbox where aggregate = $1 order by version', [
      `payment/${paymentId}`,
    ])
    .then((rows) => rows.map(({ type }) => type.replace('payments.', '')));

describe('asking for money', () => {
  it('authorises, publishes it, and answers a second request with the same payment', async () => {
    const order = ask();
    const payment = await client.authorise(order);
    expect(payment).toMatchObject({
      orderId: order.orderId,
      status: 'authorised',
      amount: eur(1000),
      captured: eur(0),
    });
    expect(await client.authorise(order)).toEqual(payment);
    expect(await emitted(payment.id)).toEqual(['PaymentAuthorised']);
  });

  it('tells a refusal with its reason', async () => {
    const payment = await client.authorise(ask('tok_declined'));
    expect(payment).toMatchObject({ status: 'declined', reason: 'card_declined' });
    expect(await emitted(payment.id)).toEqual(['PaymentDeclined']);
  });

  it('charges once when the answer of the charge never came', async () => {
    const before = await psp.stats();
    expect(await client.authorise(ask('tok_timeout', 77))).toMatchObject({ status: 'authorised' });
    const after = await psp.stats();
    expect(after.authorisations).toBe(before.authorisations + 1);
    expect(after.totals.EUR!.authorised).toBe(before.totals.EUR!.authorised + 77);
    expect(after.duplicates).toEqual([]);
  });

  it('of many requests at once for one order charges once', async () => {
    const before = await psp.stats();
    const order = ask();
    const answers = await Promise.all(Array.from({ length: 8 }, () => client.authorise(order)));
    expect(new Set(answers.map(({ id }) => id)).size).toBe(1);
    expect((await psp.stats()).authorisations).toBe(before.authorisations + 1);
  });
});

describe('a 3-D Secure challenge', () => {
  it('is answered by webhook; told twice, also at once, it counts once', async () => {
    wire.hooks.length = 0;
    const { id, orderId, actionUrl, status } = await client.authorise(ask('tok_3ds'));
    expect(status).toBe('requires_action');
    const [providerRef] = actionUrl!.split('/').slice(-1);
    await answerChallenge(providerRef!, 'success');
    await eventually(async () => (await statusOf(orderId)) === 'authorised');
    const answers = await Promise.all(Array.from({ length: 5 }, () => tell(wire.hooks[0]!)));
    for (const answer of answers) expect([204, 409]).toContain(answer);
    expect(await tell(wire.hooks[0]!)).toBe(204);
    expect(await emitted(id)).toEqual(['PaymentAuthorised', 'ChallengePassed']);
    expect(await store.history(id)).toHaveLength(3);
  });

  it.each(['success', 'failure'] as const)(
    'that ended in %s is learned of although the webhook got lost',
    async (end) => {
      wire.lost = true;
      try {
        const { id, orderId, actionUrl } = await client.authorise(ask('tok_3ds'));
        const [providerRef] = actionUrl!.split('/').slice(-1);
        await settleAfter(60_000);
        expect(await statusOf(orderId)).toBe('requires_action');
        await answerChallenge(providerRef!, end);
        await settleAfter(180_000);
        expect(await statusOf(orderId)).toBe(end === 'success' ? 'authorised' : 'declined');
        expect(await emitted(id)).toEqual(
          end === 'success' ? ['PaymentAuthorised', 'ChallengePassed'] : ['PaymentDeclined'],
        );
      } finally {
        wire.lost = false;
      }
    },
  );

  it.each([
    ['forged', (body: string) => signWebhook('another secret of the same length', body)],
    ['old', (body: string) => signWebhook(secret, body, new Date(Date.now() - 6 * 60_000))],
    ['of another body', (body: string) => signWebhook(secret, `${body} `)],
    ['missing', () => undefined],
  ])('is not believed when its signature is %s', async (_, sign) => {
    const { orderId, actionUrl } = await client.authorise(ask('tok_3ds'));
    const providerRef = actionUrl!.split('/').at(-1);
    const body = JSON.stringify({ eventId: newId(), type: 'payment.authorised', providerRef });
    expect(await tell({ body, signature: sign(body) })).toBe(401);
    expect(await statusOf(orderId)).toBe('requires_action');
  });

  it('that says something else is 400', async () => {
    const body = JSON.stringify({ eventId: newId(), type: 'payment.stolen', providerRef: 'x' });
    expect(await tell({ body, signature: signWebhook(secret, body) })).toBe(400);
  });
});

describe('a cancelled order', () => {
  it('has its authorisation let go, and what was taken given back', async () => {
    const [held, taken] = [ask(), await captured()];
    await client.authorise(held);
    for (const { orderId } of [held, taken])
      expect(await client.cancel({ orderId })).toEqual({ orderId, status: 'pending' });
    await eventually(async () => (await statusOf(held.orderId)) === 'voided');
    await eventually(async () => (await statusOf(taken.orderId)) === 'refunded');
    expect(await client.cancel(of(held))).toMatchObject({ status: 'done' });
    await expect(client.authorise(held)).rejects.toMatchObject({ code: 'PAYMENT_CANCELLED' });
    await expect(client.capture(of(held))).rejects.toMatchObject({ code: 'PAYMENT_NOT_AUTHORISED' });
    expect(await emitted(taken.id)).toEqual(['PaymentAuthorised', 'PaymentChanged', 'PaymentChanged']);
  });

  it('is heard of by its event, also before any money was asked for', async () => {
    const [paid, unknown] = [ask(), ask()];
    await client.authorise(paid);
    const ordersClient = app.get<Client<typeof ordering>>(clientToken(ordering), { strict: false });
    for (const { orderId } of [paid, unknown]) await ordersClient.cancel({ orderId });
    await eventually(async () => (await statusOf(paid.orderId)) === 'voided');
    await eventually(async () => (await statusOf(unknown.orderId)) === 'cancelled');
    await expect(client.authorise(unknown)).rejects.toMatchObject({ code: 'PAYMENT_CANCELLED' });
  });

  it('whose request for money is on its way holds none in the end', async () => {
    const before = (await psp.stats()).totals.EUR!;
    const late = ask('tok_timeout');
    const asking = client.authorise(late);
    asking.catch(() => {});
    await eventually(async () => (await psp.stats()).totals.EUR!.authorised > before.authorised);
    await client.cancel(of(late));
    await expect(asking).rejects.toMatchObject({ code: 'PAYMENT_CANCELLED' });
    await eventually(async () => (await psp.stats()).totals.EUR!.voided === before.voided + 1000);
  });

  it('is asked about again as long as a request may still come', async () => {
    const { orderId } = ask();
    await client.cancel({ orderId });
    const open = async () => (await store.ofOrder(orderId))?.intents.some(({ status }) => status === 'pending');
    await settleAfter(60_000);
    expect(await open()).toBe(true);
    await settleAfter(300_000);
    expect(await open()).toBe(false);
  });

  it('at the same time as its payment ends with no money held, whoever is first', async () => {
    const before = (await psp.stats()).totals.EUR!;
    const raced = Array.from({ length: 24 }, (_, i) => ask(i % 4 === 0 ? 'tok_timeout' : 'tok_ok'));
    const authorise = (order: (typeof raced)[number]) =>
      client.authorise(order).catch((error: unknown) => expect(error).toMatchObject({ code: 'PAYMENT_CANCELLED' }));
    const race = raced.map((order, i) => {
      const calls = [() => authorise(order), () => client.cancel(of(order))];
      return Promise.all((i % 2 ? calls : calls.reverse()).map((call) => call()));
    });
    await Promise.all(race);
    await eventually(async () => {
      await settleAfter(0);
      const { authorised, voided } = (await psp.stats()).totals.EUR!;
      return authorised - before.authorised === voided - before.voided;
    });
    for (const { orderId } of raced) expect(['voided', 'cancelled']).toContain(await statusOf(orderId));
  });

  it('at the same time as its capture gives back what was taken', async () => {
    const orders = Array.from({ length: 12 }, () => ask());
    for (const order of orders) await client.authorise(order);
    await Promise.allSettled(orders.flatMap((order) => [client.capture(of(order)), client.cancel(of(order))]));
    for (const { orderId } of orders)
      await eventually(async () => ['voided', 'refunded'].includes((await statusOf(orderId)) ?? ''));
  });
});

describe('over HTTP', () => {
  it('a payment is shown to its customer and to staff, and does not exist for anybody else', async () => {
    const { id, customerId } = await captured();
    const url = `/v1/payments/${id}`;
    expect(await http('GET', url, await tokenOf(customerId, 'customer'))).toMatchObject({
      status: 200,
      body: { id, status: 'captured', captured: eur(1000), refunded: eur(0) },
    });
    expect((await http('GET', url, await tokenOf(newId(), 'staff'))).status).toBe(200);
    expect(await http('GET', url, await tokenOf(newId(), 'customer'))).toMatchObject({
      status: 404,
      body: { code: 'PAYMENT_NOT_FOUND' },
    });
    expect((await http('GET', url)).status).toBe(401);
    expect((await http('GET', '/v1/payments/1', await tokenOf(newId(), 'staff'))).status).toBe(400);
  });

  it('a refund is for staff, needs a key, and is made once per key', async () => {
    const { id, customerId } = await captured();
    const url = `/v1/payments/${id}/refunds`;
    const body = { amount: eur(400), reason: 'broken' };
    const staff = await tokenOf(newId(), 'staff');
    expect((await http('POST', url, await tokenOf(customerId, 'customer'), body, 'k')).status).toBe(403);
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
    await eventually(async () => (await store.find(id))?.status === 'partially_refunded');
  });

  it('refunds at the same time never exceed what was taken', async () => {
    const { id } = await captured();
    const staff = await tokenOf(newId(), 'admin');
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        http('POST', `/v1/payments/${id}/refunds`, staff, { amount: eur(300), reason: 'broken' }, `many-${i}`),
      ),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 201, 201, ...Array(7).fill(409)]);
    await eventually(async () => (await store.find(id))?.refunded === 900);
  });
});

describe('the books', () => {
  it('refuse to be changed, and refuse an entry without its counterpart', async () => {
    const db = app.get<Database>(databaseToken('payments'), { strict: false });
    const { id } = await captured();
    for (const table of ['ledger_entry', 'payment_event']) {
      const own = `where payment_id = '${id}'`;
      await expect(db.query(`update ${table} set at = at ${own}`)).rejects.toThrow('append-only');
      await expect(db.query(`delete from ${table} ${own}`)).rejects.toThrow('append-only');
      await expect(test.admin(`truncate payments.${table}`)).rejects.toThrow('append-only');
    }
    const insert = `insert into ledger_entry (id, transaction_id, payment_id, account, amount, currency, at)
      select gen_random_uuid(), $1::uuid, $1::uuid, account, amount, currency, now() from jsonb_to_recordset($2::jsonb)
        as e (account text, amount bigint, currency char(3))`;
    const book = (...entries: object[]) => db.query(insert, [newId(), JSON.stringify(entries)]);
    const debit = { account: 'merchant_cash', amount: 5, currency: 'EUR' };
    await expect(book(debit)).rejects.toThrow('is off by 5 EUR');
    const foreign = { account: 'authorised_funds', amount: -5, currency: 'USD' };
    await expect(book(debit, foreign)).rejects.toThrow('is off by');
  });

  it('are at zero, and agree with the payments and with the provider', async () => {
    await eventually(async () => {
      await settleAfter(0);
      const [row] = await test.admin('select count(*)::int as open from payments.payment where set_aside > 0');
      return row?.open === 0;
    });
    const balances = await test.admin<{ account: string; sum: string }>(
      'select account, sum(amount) from payments.ledger_entry group by account',
    );
    const balance = Object.fromEntries(balances.map(({ account, sum }) => [account, Number(sum)]));
    expect(balances.reduce((total, { sum }) => total + Number(sum), 0)).toBe(0);
    const { EUR } = (await psp.stats()).totals;
    expect(balance.merchant_cash).toBe(EUR!.captured - EUR!.refunded);
    expect(balance.authorised_funds).toBe(EUR!.authorised - EUR!.captured - EUR!.voided);
    expect((await psp.stats()).duplicates).toEqual([]);
  });

  it('hold every payment, and every entry, as the fold of its events', async () => {
    const payments = await test.admin<{ id: string }>('select id from payments.payment');
    expect(payments.length).toBeGreaterThan(30);
    for (const { id } of payments) {
      const history = await store.history(id);
      expect(fold(id, history)).toEqual(await store.find(id));
      const entries = await test.admin<{ account: string; amount: string }>(
        'select account, amount from payments.ledger_entry where payment_id = $1',
        [id],
      );
      let payment = noPayment(id, history[0]!.at);
      const booked = history.flatMap(({ event, at }) => {
        const { after, entries } = book(payment, [event], at, newId);
        payment = after;
        return entries;
      });
      const told = (rows: { account: string; amount: number | string }[]) =>
        rows.map(({ account, amount }) => `${account} ${amount}`).sort();
      expect(told(entries)).toEqual(told(booked));
    }
  });

  it('cost a purchase few statements', async () => {
    const db = app.get<Database>(databaseToken('payments'), { strict: false });
    const cost = async (work: () => Promise<unknown>) => {
      let before = -1;
      // The relay and the jobs run besides: until they are quiet.
      await eventually(() => before === (before = db.statementsExecuted()), { intervalMs: 50 });
      await work();
      return db.statementsExecuted() - before;
    };
    const costs = { authorise: Infinity, capture: Infinity };
    // A sweep may still come in between: of several purchases the cheapest is the one that was left alone.
    for (let i = 0; i < 4; i++) {
      const order = ask();
      const idempotencyKey = newId();
      costs.authorise = Math.min(costs.authorise, await cost(() => client.authorise(order, { idempotencyKey })));
      costs.capture = Math.min(costs.capture, await cost(() => client.capture(of(order), { idempotencyKey })));
    }
    // One look before the transaction; BEGIN, fence, idempotency (2), outbox and COMMIT, which are the pipeline's; then
    // one statement to begin a payment, and a load and a save to go on with one.
    expect(costs).toEqual({ authorise: 6, capture: 7 });
  });
});

it('a provider that is away is PROVIDER_UNAVAILABLE, and what it did before it went is learned afterwards', async () => {
  const order = ask('tok_timeout', 55);
  const asking = client.authorise(order);
  asking.catch(() => {});
  await eventually(async () => (await psp.stats()).totals.EUR!.authorised % 100 === 55 + 77 - 100);
  await psp.kill();
  await expect(asking).rejects.toMatchObject({ code: 'PROVIDER_UNAVAILABLE', kind: 'unavailable' });
  expect(await store.ofOrder(order.orderId)).toBeUndefined();
  await psp.restart();
  await eventually(async () => (await client.authorise(order)).status === 'authorised', { timeoutMs: 15_000 });
  expect((await psp.stats()).duplicates).toEqual([]);
});
