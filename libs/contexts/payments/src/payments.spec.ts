import { payments } from '@banyan/contracts';
import { newId } from '@banyan/kernel';
import type { Client } from '@banyan/messaging';
import { signWebhook } from '@banyan/platform/auth';
import { Database, databaseToken } from '@banyan/platform/database';
import { type PspProcess, cancellingOrders, eventually, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { book } from './domain/ledger.js';
import { fold, noPayment } from './domain/payment.js';
import { PaymentProvider } from './payments.provider.js';
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
const patient = { timeoutMs: 20_000 };

/** Asks for money as the checkout does: again, as long as nobody can tell what has become of it. */
async function authorise(order: ReturnType<typeof ask>) {
  const outcome = await eventually(async () => {
    const [asked] = await Promise.allSettled([client.authorise(order)]);
    if (asked.status === 'rejected' && asked.reason.code === 'PROVIDER_UNAVAILABLE') throw asked.reason;
    return asked;
  }, patient);
  if (outcome.status === 'rejected') throw outcome.reason;
  return outcome.value;
}

/** Settles later and later, because a try that got no answer makes the next one wait, until it has had its effect. */
async function settlesInTheEnd(fromMs: number, effect: () => Promise<boolean>): Promise<void> {
  let later = fromMs;
  await eventually(async () => {
    await settleAfter((later += 120_000));
    return effect();
  }, patient);
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
    const answers = await Promise.all(Array.from({ length: 8 }, () => authorise(order)));
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
    await eventually(async () => shop.wire.hooks.length > 0 && (await statusOf(orderId)) === 'authorised', patient);
    const answers = await Promise.all(Array.from({ length: 5 }, () => tell(shop.wire.hooks[0]!)));
    for (const answer of answers) expect([204, 409]).toContain(answer);
    // The provider may be telling it again just now.
    await eventually(async () => (await tell(shop.wire.hooks[0]!)) === 204, patient);
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
        const status = end === 'success' ? 'authorised' : 'declined';
        await settlesInTheEnd(60_000, async () => (await statusOf(orderId)) === status);
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
    await eventually(async () => (await statusOf(held.orderId)) === 'voided', patient);
    await eventually(async () => (await statusOf(taken.orderId)) === 'refunded', patient);
    expect(await client.cancel(of(held))).toMatchObject({ status: 'done' });
    await expect(client.authorise(held)).rejects.toMatchObject({ code: 'PAYMENT_CANCELLED' });
    await expect(client.capture(of(held))).rejects.toMatchObject({ code: 'PAYMENT_NOT_AUTHORISED' });
    expect(await emitted(taken.id)).toEqual(['PaymentAuthorised', 'PaymentChanged', 'PaymentChanged']);
  });

  it('is heard of by its event, also before any money was asked for', async () => {
    const [paid, unknown] = [ask(), ask()];
    await client.authorise(paid);
    for (const { orderId } of [paid, unknown]) await shop.context.client(cancellingOrders).cancel({ orderId });
    await eventually(async () => (await statusOf(paid.orderId)) === 'voided', patient);
    await eventually(async () => (await statusOf(unknown.orderId)) === 'cancelled', patient);
    await expect(client.authorise(unknown)).rejects.toMatchObject({ code: 'PAYMENT_CANCELLED' });
  });

  it('whose request for money is on its way holds none in the end', async () => {
    const before = (await psp.stats()).totals.EUR!;
    const provider = shop.context.app.get<PaymentProvider>(PaymentProvider);
    const [charged, answering] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const charge = provider.authorise.bind(provider);
    const slow = vi.spyOn(provider, 'authorise').mockImplementationOnce(async (asked) => {
      const word = await charge(asked);
      charged.resolve();
      await answering.promise;
      return word;
    });
    const late = ask();
    const asking = client.authorise(late);
    asking.catch(() => {});
    await Promise.race([charged.promise, asking]);
    await client.cancel(of(late));
    answering.resolve();
    await expect(asking).rejects.toMatchObject({ code: 'PAYMENT_CANCELLED' });
    slow.mockRestore();
    await eventually(async () => (await psp.stats()).totals.EUR!.voided === before.voided + 1000, patient);
  });

  it('is asked about again as long as a request may still come', async () => {
    const { orderId } = ask();
    await client.cancel({ orderId });
    const open = async () => (await store.ofOrder(orderId))?.intents.some(({ status }) => status === 'pending');
    await settleAfter(60_000);
    expect(await open()).toBe(true);
    await settlesInTheEnd(180_000, async () => (await open()) === false);
  });

  it('at the same time as its payment ends with no money held, whoever is first', { timeout: 60_000 }, async () => {
    const before = (await psp.stats()).totals.EUR!;
    const raced = Array.from({ length: 24 }, (_, i) => ask(i % 4 === 0 ? 'tok_timeout' : 'tok_ok'));
    const pay = (order: (typeof raced)[number]) =>
      authorise(order).catch((error: unknown) => expect(error).toMatchObject({ code: 'PAYMENT_CANCELLED' }));
    const race = raced.map((order, i) => {
      const calls = [() => pay(order), () => client.cancel(of(order))];
      return Promise.all((i % 2 ? calls : calls.reverse()).map((call) => call()));
    });
    await Promise.all(race);
    await eventually(async () => {
      await settleAfter(0);
      const { authorised, voided } = (await psp.stats()).totals.EUR!;
      return authorised - before.authorised === voided - before.voided;
    }, patient);
    // What the provider has done is written down a moment later.
    for (const { orderId } of raced)
      await eventually(async () => ['voided', 'cancelled'].includes((await statusOf(orderId)) ?? ''), patient);
  });

  it('at the same time as its capture gives back what was taken', { timeout: 60_000 }, async () => {
    const orders = Array.from({ length: 12 }, () => ask());
    for (const order of orders) await client.authorise(order);
    await Promise.allSettled(orders.flatMap((order) => [client.capture(of(order)), client.cancel(of(order))]));
    for (const { orderId } of orders)
      await eventually(async () => ['voided', 'refunded'].includes((await statusOf(orderId)) ?? ''), patient);
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
    }, patient);
    expect(await test.admin('select sum(amount)::int as total from payments.ledger_entry')).toEqual([{ total: 0 }]);
    // The provider is ahead of the books until its answer has been written down.
    await eventually(async () => {
      const balances = await test.admin<{ account: string; sum: string }>(
        'select account, sum(amount) from payments.ledger_entry group by account',
      );
      const balance = Object.fromEntries(balances.map(({ account, sum }) => [account, Number(sum)]));
      const { EUR } = (await psp.stats()).totals;
      expect(balance.merchant_cash).toBe(EUR!.captured - EUR!.refunded);
      expect(balance.authorised_funds).toBe(EUR!.authorised - EUR!.captured - EUR!.voided);
      return true;
    }, patient);
    expect((await psp.stats()).duplicates).toEqual([]);
  });

  it('hold every payment, and every entry, as the fold of its events', async () => {
    const payments = await test.admin<{ id: string }>('select id from payments.payment');
    expect(payments.length).toBeGreaterThan(30);
    const told = (rows: { account: string; amount: number | string }[]) =>
      rows.map(({ account, amount }) => `${account} ${amount}`).sort();
    // All of one payment is looked at with no change in between.
    for (const { id } of payments)
      await eventually(async () => {
        const found = await store.find(id);
        const history = await store.history(id);
        const entries = await test.admin<{ account: string; amount: string }>(
          'select account, amount from payments.ledger_entry where payment_id = $1',
          [id],
        );
        if ((await store.find(id))?.version !== found?.version) return false;
        expect(fold(id, history)).toEqual(found);
        let payment = noPayment(id, history[0]!.at);
        const booked = history.flatMap(({ event, at }) => {
          const { after, entries } = book(payment, [event], at, newId);
          payment = after;
          return entries;
        });
        expect(told(entries)).toEqual(told(booked));
        return true;
      }, patient);
  });

  it('cost a purchase few statements', async () => {
    const db = shop.context.app.get<Database>(databaseToken('payments'));
    const cost = async (work: () => Promise<unknown>) => {
      let before = -1;
      // The relay and the jobs run besides: until they are quiet.
      await eventually(() => before === (before = db.statementsExecuted()), { ...patient, intervalMs: 50 });
      await work();
      return db.statementsExecuted() - before;
    };
    const costs = { authorise: Infinity, capture: Infinity };
    // A sweep may still come in between: of several purchases the cheapest is the one that was left alone.
    await eventually(async () => {
      const order = ask();
      const idempotencyKey = newId();
      costs.authorise = Math.min(costs.authorise, await cost(() => client.authorise(order, { idempotencyKey })));
      costs.capture = Math.min(costs.capture, await cost(() => client.capture(of(order), { idempotencyKey })));
      // One look before the transaction; BEGIN, fence, idempotency (2), outbox and COMMIT, which are the pipeline's;
      // then one statement to begin a payment, and a load and a save to go on with one.
      expect(costs).toEqual({ authorise: 6, capture: 7 });
      return true;
    }, patient);
  });
});

describe('a provider that is away', () => {
  const own = testDatabase({ contexts: ['payments', 'orders'] });
  let alone: PaymentsShop;
  beforeAll(async () => {
    // The first request is still the only one when the provider goes.
    alone = await PaymentsShop.open(own, { pspTimeoutMs: 60_000 });
  });
  afterAll(() => alone?.close());

  it('is PROVIDER_UNAVAILABLE, and what it did before it went is learned afterwards', async () => {
    const { psp, client } = alone;
    const order = ask('tok_timeout', 55);
    const asking = client.authorise(order);
    asking.catch(() => {});
    await eventually(async () => (await psp.stats()).totals.EUR?.authorised === 55, patient);
    await psp.kill();
    await expect(asking).rejects.toMatchObject({ code: 'PROVIDER_UNAVAILABLE', kind: 'unavailable' });
    expect(await alone.context.app.get(PaymentStore).ofOrder(order.orderId)).toBeUndefined();
    await psp.restart();
    await eventually(async () => (await client.authorise(order)).status === 'authorised', patient);
    expect((await psp.stats()).duplicates).toEqual([]);
  });
});
