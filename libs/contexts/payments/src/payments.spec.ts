import { payments } from '@banyan/contracts';
import { newId } from '@banyan/kernel';
import type { Client } from '@banyan/messaging';
import { signWebhook } from '@banyan/platform/auth';
import { Database, databaseToken } from '@banyan/platform/database';
import { type PspProcess, cancellingOrders, eventually, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { book } from './domain/ledger.js';
import { fold, noPayment } from './domain/payment.js';
import { PaymentStore } from './payments.store.js';
import { Settlement } from './payments.settlement.js';
import { PaymentsShop, type Webhook, ask, eur, of, secret } from './payments.spec-support.js';

const test = testDatabase({ contexts: ['payments', 'orders'] });

let shop: PaymentsShop;
let psp: PspProcess;
let client: Client<typeof payments>;
let store: PaymentStore;
let settlement: Settlement;

beforeAll(async () => {
  shop = await PaymentsShop.open(test);
  ({ psp, client } = shop);
  store = shop.context.app.get(PaymentStore);
  settlement = shop.context.app.get(Settlement);
});
afterAll(() => shop?.close());

/** The sweep as it will run after `ms`: nothing here sleeps. */
const settleAfter = (ms: number) => settlement.settle({ now: new Date(Date.now() + ms) });
const statusOf = async (orderId: string) => (await store.ofOrder(orderId))?.status;
const tell = (hook: Webhook) => shop.tell(hook);

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
    shop.wire.hooks.length = 0;
    const { id, orderId, actionUrl, status } = await client.authorise(ask('tok_3ds'));
    expect(status).toBe('requires_action');
    const [providerRef] = actionUrl!.split('/').slice(-1);
    await answerChallenge(providerRef!, 'success');
    await eventually(async () => (await statusOf(orderId)) === 'authorised');
    const answers = await Promise.all(Array.from({ length: 5 }, () => tell(shop.wire.hooks[0]!)));
    for (const answer of answers) expect([204, 409]).toContain(answer);
    expect(await tell(shop.wire.hooks[0]!)).toBe(204);
    expect(await emitted(id)).toEqual(['PaymentAuthorised', 'ChallengePassed']);
    expect(await store.history(id)).toHaveLength(3);
  });

  it.each(['success', 'failure'] as const)(
    'that ended in %s is learned of although the webhook got lost',
    async (end) => {
      shop.wire.lost = true;
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
        shop.wire.lost = false;
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
    const [held, taken] = [ask(), await shop.captured()];
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
    for (const { orderId } of [paid, unknown]) await shop.context.client(cancellingOrders).cancel({ orderId });
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

describe('the books', () => {
  it('refuse to be changed, and refuse an entry without its counterpart', async () => {
    const db = shop.context.app.get<Database>(databaseToken('payments'));
    const { id } = await shop.captured();
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
    const db = shop.context.app.get<Database>(databaseToken('payments'));
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
