import { catalog } from '@banyan/contracts';
import { newId } from '@banyan/kernel';
import { eventually, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Shop, type Visitor, address, shopContexts } from './shop.spec-support.js';

const test = testDatabase({ contexts: shopContexts });
let shop: Shop;

beforeAll(async () => {
  shop = await Shop.open(test);
  const offered = ['mug', 'tea', 'pot'];
  for (const sku of offered) await shop.offer(sku);
  await shop.offer('us-mug', 1500, 'USD');
  await known(...offered, 'us-mug');
});
afterAll(() => shop?.close());

const patient = { timeoutMs: 20_000 };

const rows = (sql: string, values?: unknown[]) => test.admin(`select ${sql}`, values);
const known = (...wanted: string[]) =>
  eventually(
    async () => (await rows('from orders.product where sku = any($1)', [wanted])).length === wanted.length,
    patient,
  );
const skus = (cart: { items: { sku: string }[] }) => cart.items.map(({ sku }) => sku);

describe('A cart', () => {
  it('is empty at first', async () => {
    const { status, body } = await shop.customer().ask('GET', '/v1/cart');
    expect(status).toBe(200);
    expect(body).toEqual({ items: [], total: { amount: 0, currency: 'EUR' }, version: 0 });
  });

  it('takes products, changes how many, and gives them up', async () => {
    const ada = shop.customer();
    await ada.put('mug', 2);
    await ada.put('tea');
    const { body } = await ada.put('mug', 3);
    const price = { amount: 1299, currency: 'EUR' };
    expect(body).toEqual({
      items: [
        { sku: 'mug', productName: 'The mug', quantity: 3, unitPrice: price, lineTotal: { ...price, amount: 3897 } },
        { sku: 'tea', productName: 'The tea', quantity: 1, unitPrice: price, lineTotal: price },
      ],
      total: { amount: 5196, currency: 'EUR' },
      version: 3,
    });
    expect((await ada.ask('GET', '/v1/cart')).body).toEqual(body);
    expect(skus((await ada.ask('DELETE', '/v1/cart/items/mug')).body)).toEqual(['tea']);
    expect((await ada.ask('DELETE', '/v1/cart/items/mug')).status).toBe(200);
  });

  it('refuses what is not offered, other currencies, and what makes no sense; and changes nothing', async () => {
    const ada = shop.customer();
    await ada.put('mug');
    const before = (await ada.ask('GET', '/v1/cart')).text;
    const refused = async (answer: Promise<{ status: number; body: { code: string } }>) => {
      const { status, body } = await answer;
      return [status, body.code];
    };
    expect(await refused(ada.put('nothing'))).toEqual([404, 'PRODUCT_UNKNOWN']);
    expect(await refused(ada.put('us-mug'))).toEqual([409, 'CURRENCY_MIXED']);
    for (const quantity of [0, -1, 1.5, 1001, '1', null, { not: 1 }])
      expect((await ada.put('tea', quantity as number)).status).toBe(400);
    expect((await ada.put('no%20sku')).status).toBe(400);
    expect((await ada.ask('PUT', '/v1/cart/items/tea', { quantity: 1, price: 0 })).status).toBe(400);
    expect((await ada.ask('GET', '/v1/cart')).text).toBe(before);
  });

  it('loses none of many changes at once', async () => {
    const ada = shop.customer();
    const many = Array.from({ length: 20 }, (_, index) => `many-${index}`);
    for (const sku of many) await shop.offer(sku);
    await known(...many);
    const answers = await Promise.all(many.map((sku) => ada.put(sku)));
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200));
    const { body } = await ada.ask('GET', '/v1/cart');
    expect(skus(body).sort()).toEqual(many.sort());
    expect(body.version).toBe(20);
    // Each answer showed all that had been put by then.
    expect(answers.map(({ body }) => body.items.length).sort((a, b) => a - b)).toEqual(
      many.map((_, index) => index + 1),
    );
  });

  it('is priced as catalog last said, whatever comes late', async () => {
    const ada = shop.customer();
    const { id } = await shop.offer('lamp', 100);
    await known('lamp');
    const said = (version: number, amount: number) =>
      test.admin(
        `insert into catalog.outbox (event_id, subscriber, type, type_version, aggregate, version, data, occurred_at, state, due_at)
         values ($1, 'orders', $2, 1, $3, $4, $5, now(), 'pending', now())`,
        [newId(), catalog.events.ProductUpdated.name, `product/late-${version}`, version, JSON.stringify(lamp(amount))],
      );
    const lamp = (amount: number) => ({
      productId: id,
      sku: 'lamp',
      name: 'Lamp',
      category: 'all',
      price: price(amount),
    });
    const price = (amount: number) => ({ amount, currency: 'EUR' });
    await said(7, 700);
    await eventually(async () => (await rows('from orders.product where price = 700')).length === 1, patient);
    await said(6, 600);
    await eventually(
      async () => (await rows(`from catalog.outbox where version = 6 and state = 'done'`)).length === 1,
      patient,
    );
    expect((await ada.put('lamp')).body.total).toEqual(price(700));
  });
});

describe('Placing an order', () => {
  it('answers 201 with the pending order, where to find it, and leaves the cart empty', async () => {
    const ada = shop.customer();
    await ada.put('mug', 2);
    const { status, body, headers } = await ada.order();
    expect(status).toBe(201);
    expect(headers['location']).toBe(`/v1/orders/${body.id}`);
    expect(body).toEqual({
      id: expect.any(String),
      status: 'pending',
      items: [{ sku: 'mug', productName: 'The mug', quantity: 2, unitPrice: { amount: 1299, currency: 'EUR' } }],
      total: { amount: 2598, currency: 'EUR' },
      shippingAddress: address,
      payment: null,
      shipment: null,
      createdAt: expect.any(String),
    });
    expect((await ada.ask('GET', '/v1/cart')).body).toMatchObject({ items: [], version: 2 });
    expect(
      await rows('position, sku, quantity, unit_price::int from orders.order_line where order_id = $1', [body.id]),
    ).toEqual([{ position: 1, sku: 'mug', quantity: 2, unit_price: 1299 }]);
  });

  it('makes one order of one cart, whoever races for it', async () => {
    const ada = shop.customer();
    await ada.put('mug');
    await ada.put('tea', 4);
    const answers = await Promise.all(Array.from({ length: 20 }, () => ada.order()));
    const placed = answers.filter(({ status }) => status === 201);
    expect(placed).toHaveLength(1);
    const lost = answers.filter(({ status }) => status !== 201);
    expect(lost.map(({ status, body }) => [status, body.code])).toEqual(Array(19).fill([409, 'CART_EMPTY']));
    expect((await ada.ask('GET', '/v1/orders')).body.items).toHaveLength(1);
    expect(placed[0]!.body.total.amount).toBe(5 * 1299);
  });

  it('loses nothing that is put into the cart meanwhile', async () => {
    const ada = shop.customer();
    await ada.put('mug');
    await Promise.all([ada.order(), ada.put('tea'), ada.order(), ada.put('pot'), ada.order()]);
    const left = skus((await ada.ask('GET', '/v1/cart')).body);
    const ordered = (await ada.ask('GET', '/v1/orders')).body.items.flatMap(skus);
    expect([...left, ...ordered].sort()).toEqual(['mug', 'pot', 'tea']);
  });

  it('does the same thing once, and answers the same bytes', async () => {
    const ada = shop.customer();
    await ada.put('mug');
    const first = await ada.order('tok_ok', 'my key');
    expect([first.status, first.body.code]).toEqual([400, 'IDEMPOTENCY_KEY_INVALID']);
    const answers = await Promise.all(Array.from({ length: 5 }, () => ada.order('tok_ok', 'my-key')));
    const done = answers.filter(({ status }) => status === 201);
    const again = await ada.order('tok_ok', 'my-key');
    expect(again.status).toBe(201);
    expect(again.headers['idempotent-replayed']).toBe('true');
    expect(new Set([...done, again].map(({ text }) => text)).size).toBe(1);
    expect(again.headers['location']).toBe(`/v1/orders/${again.body.id}`);
    expect((await ada.order('tok_declined', 'my-key')).status).toBe(422);
    expect((await ada.ask('GET', '/v1/orders')).body.items).toHaveLength(1);
  });

  it('needs a key, something in the cart, and an order that makes sense', async () => {
    const ada = shop.customer();
    const body = { shippingAddress: address, paymentMethod: 'tok_ok' };
    const order = (body: object, key: Record<string, string> = { 'idempotency-key': newId() }) =>
      ada.ask('POST', '/v1/orders', body, key);
    expect((await order(body)).body.code).toBe('CART_EMPTY');
    await ada.put('mug');
    expect(await order(body, {})).toMatchObject({ status: 400, body: { code: 'IDEMPOTENCY_KEY_REQUIRED' } });
    for (const wrong of [
      { shippingAddress: address },
      { ...body, paymentMethod: '4111111111111111' },
      { ...body, total: { amount: 1, currency: 'EUR' } },
      { ...body, shippingAddress: { ...address, country: 'Germany' } },
    ])
      expect((await order(wrong)).status).toBe(400);
    expect(skus((await ada.ask('GET', '/v1/cart')).body)).toEqual(['mug']);
  });

  it('keeps the payment method out of the order', async () => {
    const ada = shop.customer();
    const id = await ada.buy('mug');
    const kept = await rows(
      'o.*, v.* from orders.orders o join orders.order_view v on v.order_id = o.id where id = $1',
      [id],
    );
    expect(JSON.stringify(kept)).not.toContain('tok_');
  });
});

describe('The orders of a customer', () => {
  let ada: Visitor;
  const placed: string[] = [];
  beforeAll(async () => {
    ada = shop.customer();
    for (let count = 0; count < 5; count++) placed.unshift(await ada.buy('mug'));
  });

  it('are listed newest first, page by page', async () => {
    const seen: string[] = [];
    let cursor: string | null = null;
    for (let pages = 1; ; pages++) {
      const { status, body } = await ada.ask('GET', `/v1/orders?limit=2${cursor ? `&cursor=${cursor}` : ''}`);
      expect(status).toBe(200);
      seen.push(...body.items.map(({ id }: { id: string }) => id));
      cursor = body.nextCursor;
      if (!cursor) {
        expect(pages).toBe(3);
        break;
      }
    }
    expect(seen).toEqual(placed);
  });

  it.each(['limit=0', 'limit=101', 'limit=ten', 'cursor=made-up', 'page=2'])(
    'cannot be listed with %s',
    async (query) => {
      expect((await ada.ask('GET', `/v1/orders?${query}`)).status).toBe(400);
    },
  );

  it('are nobody else’s: not to see, not to cancel, not to list', async () => {
    const eve = shop.customer();
    const id = placed[0]!;
    const unknown = await eve.see(newId());
    for (const answer of [await eve.see(id), await eve.cancel(id), unknown])
      expect([answer.status, answer.body.code, answer.body.detail]).toEqual([
        404,
        'ORDER_NOT_FOUND',
        unknown.body.detail,
      ]);
    expect((await eve.ask('GET', '/v1/orders')).body).toEqual({ items: [], nextCursor: null });
    expect((await eve.see('not-an-id')).status).toBe(400);
  });

  it('can be read by staff, who can do no more with them', async () => {
    const staff = shop.customer('staff');
    expect((await staff.see(placed[0]!)).body.id).toBe(placed[0]);
    expect((await staff.cancel(placed[0]!)).status).toBe(404);
    expect((await staff.ask('GET', '/v1/orders')).body.items).toEqual([]);
  });
});
