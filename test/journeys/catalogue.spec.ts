import { newId } from '@banyan/kernel';
import { eventually } from '@banyan/testing';
import { describe, expect, it } from 'vitest';
import { openShop, placements } from '../shop/shop.js';
import type { Visitor } from '../shop/visitor.js';

const newProduct = (changes: object = {}) => ({
  sku: `SKU-${newId()}`,
  name: 'A lamp',
  description: 'It shines.',
  category: 'light',
  price: { amount: 4900, currency: 'EUR' },
  ...changes,
});

/** Every item of a list, page by page; `between` runs after each page. */
async function walk(visitor: Visitor, path: string, limit: number, between: () => Promise<unknown> = async () => {}) {
  const items: { id: string }[] = [];
  for (let cursor: string | null = ''; cursor !== null;) {
    const query: string = `${path}${path.includes('?') ? '&' : '?'}limit=${limit}${cursor && `&cursor=${encodeURIComponent(cursor)}`}`;
    const { body } = (await visitor.get(query)).expect(200);
    expect(body.items.length).toBeLessThanOrEqual(limit);
    items.push(...body.items);
    cursor = body.nextCursor;
    if (cursor) await between();
  }
  return items;
}

describe.each(placements)('The catalogue, %s', (placement) => {
  const shop = openShop({ placement, psp: false });

  it('is changed by staff, who must have seen what they change', async () => {
    const staff = await shop.staff();
    const input = newProduct();
    const created = (await staff.post('/v1/products', input)).expect(201);
    expect(created.body).toMatchObject({ ...input, version: 1 });
    const path = `/v1/products/${created.body.id}`;
    expect(created.headers).toMatchObject({ etag: '"1"', location: path });
    expect((await staff.post('/v1/products', input)).problem(409)).toBe('SKU_TAKEN');

    const dearer = { price: { amount: 5900, currency: 'EUR' } };
    expect((await staff.patch(path, dearer)).problem(428)).toBe('IF_MATCH_REQUIRED');
    expect((await staff.patch(path, dearer, { 'if-match': 'one' })).problem(400)).toBe('IF_MATCH_INVALID');
    const patched = (await staff.patch(path, dearer, { 'if-match': '"1"' })).expect(200);
    expect(patched.body).toMatchObject({ ...input, ...dearer, version: 2 });
    expect(patched.headers.etag).toBe('"2"');
    expect((await staff.patch(path, dearer, { 'if-match': '"1"' })).problem(412)).toBe('PRODUCT_STALE');
    expect((await staff.patch(`/v1/products/${newId()}`, dearer, { 'if-match': '"1"' })).problem(404)).toBe(
      'PRODUCT_NOT_FOUND',
    );

    const anybody = shop.stranger();
    expect((await anybody.get(path)).expect(200).headers.etag).toBe('"2"');
    const known = (await anybody.get(path, { 'if-none-match': '"2"' })).expect(304);
    expect(known.text).toBe('');
    (await anybody.get(path, { 'if-none-match': '"1"' })).expect(200);
  });

  it('of two who change the same version at once lets one', async () => {
    const staff = await shop.staff();
    const { id } = (await staff.post('/v1/products', newProduct())).expect(201).body;
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        staff.patch(`/v1/products/${id}`, { name: `Lamp ${i}` }, { 'if-match': '"1"' }),
      ),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([200, ...Array.from({ length: 7 }, () => 412)]);
  });

  it('has its new price in carts, and the old one in orders placed before', async () => {
    const sku = await shop.offer({ amount: 1000 });
    const [product] = (await shop.stranger().get(`/v1/products?q=${sku}`)).expect(200).body.items;
    const lea = await shop.guest();
    const order = await lea.buy(sku);
    await lea.putInCart(sku);
    const changes = { price: { amount: 1100, currency: 'EUR' } };
    (await (await shop.staff()).patch(`/v1/products/${product.id}`, changes, { 'if-match': '"1"' })).expect(200);
    await eventually(async () => (await lea.get('/v1/cart')).body.total.amount === 1100, { timeoutMs: 20_000 });
    expect((await lea.see(order)).total.amount).toBe(1000);
  });

  it('takes a long import, and says which lines were bad', async () => {
    const staff = await shop.staff();
    const good = Array.from({ length: 450 }, (_, i) => newProduct({ name: `Imported ${i}` }));
    const lines = good.map((product) => JSON.stringify(product));
    lines.splice(10, 0, '{"sku": "half');
    lines.splice(20, 0, JSON.stringify(newProduct({ price: { amount: -1, currency: 'EUR' } })));
    lines.splice(30, 0, '');
    lines.splice(40, 0, JSON.stringify(newProduct({ colour: 'red' })));
    lines.splice(50, 0, JSON.stringify(newProduct({ name: { not: '' } })));
    const upload = () =>
      staff.send('POST', '/v1/products/import', lines.join('\n'), { 'content-type': 'application/x-ndjson' });

    const { body } = (await upload()).expect(200);
    expect(body).toMatchObject({ created: 450, updated: 0, unchanged: 0, failed: 4 });
    expect(body.errors.map(({ line }: { line: number }) => line)).toEqual([11, 21, 41, 51]);
    expect(body.errors[2].detail).toContain('/colour');
    expect((await upload()).expect(200).body).toMatchObject({ created: 0, updated: 0, unchanged: 450, failed: 4 });

    // They can be bought a moment later.
    const mia = await shop.guest();
    await eventually(async () => (await mia.put(`/v1/cart/items/${good[449]!.sku}`, { quantity: 1 })).status === 200, {
      timeoutMs: 20_000,
    });
  });

  it('is listed completely, each product once, while others are added', { timeout: 120_000 }, async () => {
    const staff = await shop.staff();
    const category = `shelf ${newId()}`;
    const add = async () =>
      (await staff.post('/v1/products', newProduct({ category, name: 'Quince' }))).expect(201).body.id;
    const there = await Promise.all(Array.from({ length: 25 }, add));
    for (const path of [
      `/v1/products?category=${encodeURIComponent(category)}`,
      '/v1/products',
      '/v1/products?q=quince',
    ]) {
      const seen = (await walk(shop.stranger(), path, 7, () => Promise.all([add(), add()]))).map(({ id }) => id);
      expect(new Set(seen).size).toBe(seen.length);
      expect(seen).toEqual(expect.arrayContaining(there));
    }
  });

  it('lists a customer’s orders completely, newest first, while she buys more', async () => {
    const sku = await shop.offer({ onHand: 0 });
    const nia = await shop.guest();
    const there: string[] = [];
    for (let i = 0; i < 12; i++) there.unshift(await nia.buy(sku));
    const seen = (await walk(nia, '/v1/orders', 5, () => nia.buy(sku))).map(({ id }) => id);
    expect(seen).toEqual(there);
  });

  it('refuses a cursor that it has not handed out', async () => {
    const anybody = shop.stranger();
    for (const cursor of ['x', 'WzBd.AAAAAAAA', `${Buffer.from('[0,"1"]').toString('base64url')}.x`])
      expect((await anybody.get(`/v1/products?cursor=${cursor}`)).problem(400)).toBe('CURSOR_INVALID');
    for (const limit of ['0', '101', '-1', '1.5', 'many'])
      expect((await anybody.get(`/v1/products?limit=${limit}`)).problem(400)).toBe('INPUT_INVALID');
  });
});
