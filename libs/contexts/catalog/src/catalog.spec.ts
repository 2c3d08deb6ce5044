import { type NewProduct, type Product, catalog } from '@banyan/contracts';
import { newId } from '@banyan/kernel';
import { encodeCursor } from '@banyan/platform/http';
import {
  type AppAnswer,
  type AppRequest,
  type ContextApp,
  contextApp,
  eventually,
  testDatabase,
} from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CatalogModule } from './catalog.module.js';
import { CatalogStore } from './catalog.store.js';

/* Real: HTTP, the guard, the messaging engine, Postgres. */
const test = testDatabase({ contexts: ['catalog'] });

let shop: ContextApp;
let staff: string;
let customer: string;

beforeAll(async () => {
  shop = await contextApp({
    test,
    module: CatalogModule,
    contracts: [catalog],
    settings: { BANYAN_RATE_LIMITS: 'off' },
  });
  staff = await shop.tokenOf(newId(), 'staff');
  customer = await shop.tokenOf(newId(), 'customer');
});
afterAll(() => shop?.close());

const call = (method: 'GET' | 'POST' | 'PATCH', path: string, ask?: AppRequest): Promise<AppAnswer> =>
  shop.request(method, `/v1/products${path}`, ask);

let skus = 0;
const draft = (fields: Partial<NewProduct> = {}): NewProduct => ({
  sku: `T-${++skus}`,
  name: 'Plain Thing',
  description: '',
  category: 'Things',
  price: { amount: 1_299, currency: 'EUR' },
  ...fields,
});
const create = async (fields: Partial<NewProduct> = {}): Promise<Product> => {
  const { status, body } = await call('POST', '', { token: staff, body: draft(fields) });
  expect(status).toBe(201);
  return body;
};
const find = async (query: Record<string, string>): Promise<string[]> => {
  const { status, body } = await call('GET', `?${new URLSearchParams(query)}`);
  expect(status).toBe(200);
  return body.items.map((item: Product) => item.name);
};
const eventsOf = (productId: string) =>
  test.admin('select type, data, version from catalog.outbox where aggregate = $1 order by version', [
    `product/${productId}`,
  ]);

describe('a product', () => {
  it('is created by staff, found under its Location, and told to others', async () => {
    const body = draft({ name: '  Harbour Mug  ', description: 'Holds tea.' });
    const created = await call('POST', '', { token: staff, body });
    expect(created.status).toBe(201);
    expect(created.headers.etag).toBe('"1"');
    expect(created.headers.location).toBe(`/v1/products/${created.body.id}`);
    expect(created.body).toEqual({
      ...body,
      name: 'Harbour Mug',
      id: created.body.id,
      version: 1,
      updatedAt: expect.any(String),
    });
    expect((await call('GET', `/${created.body.id}`)).body).toEqual(created.body);
    const { id: productId, sku, name, category, price } = created.body;
    expect(await eventsOf(productId)).toEqual([
      { type: 'catalog.ProductCreated', version: '1', data: { productId, sku, name, category, price } },
    ]);
  });

  it('answers 304 to who has it already', async () => {
    const { id } = await create();
    const fresh = await call('GET', `/${id}`, { headers: { 'if-none-match': '"1"' } });
    expect([fresh.status, fresh.text]).toEqual([304, '']);
    expect((await call('GET', `/${id}`, { headers: { 'if-none-match': '"2"' } })).status).toBe(200);
  });

  it('takes a SKU once', async () => {
    const { sku } = await create();
    expect(await call('POST', '', { token: staff, body: draft({ sku }) })).toMatchObject({
      status: 409,
      body: { code: 'SKU_TAKEN' },
    });
  });

  it('changes only for who has seen its version', async () => {
    const { id, sku } = await create({ name: 'Before' });
    const patch = (
      headers: Record<string, string>,
      body: object = { name: 'After', price: { amount: 5, currency: 'USD' } },
    ) => call('PATCH', `/${id}`, { token: staff, headers, body });
    expect((await patch({})).status).toBe(428);
    expect((await patch({ 'if-match': '"9"' })).status).toBe(412);
    expect((await patch({ 'if-match': '"1"' }, {})).status).toBe(400);
    expect((await patch({ 'if-match': '"1"' }, { sku: 'NEW' })).status).toBe(400);
    const changed = await patch({ 'if-match': '"1"' });
    expect(changed).toMatchObject({
      status: 200,
      body: { sku, name: 'After', price: { amount: 5, currency: 'USD' }, version: 2 },
    });
    expect(changed.headers.etag).toBe('"2"');
    expect((await call('GET', `/${id}`)).body).toEqual(changed.body);
    expect((await patch({ 'if-match': '"1"' })).body).toMatchObject({ code: 'PRODUCT_STALE' });
    expect((await eventsOf(id)).map((row) => row.type)).toEqual(['catalog.ProductCreated', 'catalog.ProductUpdated']);
  });

  it('changed by many at once is changed by one', async () => {
    const { id } = await create();
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        call('PATCH', `/${id}`, { token: staff, headers: { 'if-match': '"1"' }, body: { name: `N${i}` } }),
      ),
    );
    expect(answers.map((answer) => answer.status).sort()).toEqual([200, ...Array(7).fill(412)]);
  });

  it('is unknown under any other id', async () => {
    expect(await call('GET', `/${newId()}`)).toMatchObject({ status: 404, body: { code: 'PRODUCT_NOT_FOUND' } });
    expect((await call('GET', '/mug')).status).toBe(400);
    const patch = { token: staff, headers: { 'if-match': '"1"' }, body: { name: 'x' } };
    expect((await call('PATCH', `/${newId()}`, patch)).status).toBe(404);
  });

  it('is written by staff only', async () => {
    for (const [method, path] of [
      ['POST', ''],
      ['PATCH', `/${newId()}`],
      ['POST', '/import'],
    ] as const) {
      expect((await call(method, path, { body: {} })).status).toBe(401);
      expect((await call(method, path, { body: {}, token: customer })).status).toBe(403);
    }
  });

  it.each([
    ['an unknown field', { colour: 'red' }, '/colour'],
    ['a price with a fraction', { price: { amount: 1.5, currency: 'EUR' } }, '/price/amount'],
    ['an empty name', { name: '   ' }, '/name'],
  ])('with %s is refused', async (_what, fields, pointer) => {
    const { status, body } = await call('POST', '', { token: staff, body: { ...draft(), ...fields } });
    expect(status).toBe(400);
    expect(body.errors.map((error: { pointer: string }) => error.pointer)).toContain(pointer);
  });

  it('with half a surrogate pair is refused before anything reads it', async () => {
    const { status, body } = await call('POST', '', { token: staff, body: draft({ name: '\ud83d' }) });
    expect([status, body.code]).toEqual([400, 'MALFORMED_JSON']);
  });

  it('is read with one statement', async () => {
    const { id } = await create();
    const db = test.database('catalog');
    const before = db.statementsExecuted();
    expect(await new CatalogStore(db).find(id)).toMatchObject({ id });
    expect(db.statementsExecuted() - before).toBe(1);
  });
});

describe('the search', () => {
  beforeAll(async () => {
    await create({ name: 'Zebra Lantern', category: 'Zoo', description: 'Lights a path.' });
    await create({ name: 'Quiet Box', category: 'Zoo', description: 'Made for zebras that read.' });
    await create({ name: 'Red Okapi', category: 'Zebra Corner', description: 'Soft.' });
    await create({ name: 'Blue Okapi', category: 'Zoo', description: 'Softer.' });
  });

  it('ranks the name over the category over the description', async () => {
    expect(await find({ q: 'zebra' })).toEqual(['Zebra Lantern', 'Red Okapi', 'Quiet Box']);
  });

  it.each([
    ['the start of a word', 'lant', ['Zebra Lantern']],
    ['starts of several words', 'zeb lan', ['Zebra Lantern']],
    ['another form of a word', 'lanterns', ['Zebra Lantern']],
    ['a phrase', '"red okapi"', ['Red Okapi']],
    ['a word to leave out', 'okapi -red', ['Blue Okapi']],
    ['one word or the other', 'lantern or box', ['Zebra Lantern', 'Quiet Box']],
    ['capitals', 'ZEBRA LANTERN', ['Zebra Lantern']],
    ['nothing there is', 'giraffe', []],
  ])('finds %s', async (_what, q, names) => expect((await find({ q })).sort()).toEqual([...names].sort()));

  it('narrows to a category', async () => {
    expect(await find({ q: 'okapi', category: 'Zoo' })).toEqual(['Blue Okapi']);
    expect(await find({ category: 'Zebra Corner' })).toEqual(['Red Okapi']);
  });

  it('finds a product by its SKU, and by its new name at once', async () => {
    const { id } = await create({ sku: 'XYLO-0042', name: 'Xylophone' });
    expect(await find({ q: 'XYLO-0042' })).toEqual(['Xylophone']);
    await call('PATCH', `/${id}`, { token: staff, headers: { 'if-match': '"1"' }, body: { name: 'Vibraphone' } });
    expect(await find({ q: 'vibra' })).toEqual(['Vibraphone']);
    expect(await find({ q: 'xylophone' })).toEqual([]);
  });

  it.each([
    "'; drop table product; --",
    ':*',
    '!',
    '& | <->',
    '\\',
    '"',
    '((',
    '🦊',
    '\u202e\ufeff',
    'a'.repeat(200),
    '%',
    "o'",
  ])('takes any text: %j', async (q) => void (await find({ q })));

  it.each([
    'unknown=1',
    'limit=0',
    'limit=101',
    'limit=x',
    `q=${'a'.repeat(201)}`,
    'q=a&q=b',
    'q[not]=',
    'q=a%00b',
    'category=',
    'category=%00',
  ])('refuses ?%s', async (query) => expect((await call('GET', `?${query}`)).status).toBe(400));
});

describe('pages', () => {
  const pagesOf = async (query: Record<string, string>, between: () => Promise<unknown> = async () => undefined) => {
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const { status, body } = await call('GET', `?${new URLSearchParams({ ...query, ...(cursor && { cursor }) })}`);
      expect(status).toBe(200);
      seen.push(...body.items.map((item: Product) => item.sku));
      cursor = body.nextCursor;
      await between();
    } while (cursor);
    return seen;
  };

  it.each([
    ['of a category', { category: 'Paged' }],
    ['of a search', { q: 'paged' }],
    ['of both', { q: 'pag', category: 'Paged' }],
  ])('%s show each product once while others are added', async (_what, query) => {
    const before = new Set(await pagesOf({ ...query, limit: '100' }));
    for (let i = before.size; i < 23; i++)
      before.add((await create({ name: `Paged ${i % 3 ? 'Pagoda' : 'Paged Pages'}`, category: 'Paged' })).sku);
    const seen = await pagesOf({ ...query, limit: '5' }, () => create({ name: 'Paged Late', category: 'Paged' }));
    expect(new Set(seen).size).toBe(seen.length);
    for (const sku of before) expect(seen).toContain(sku);
  });

  it('end exactly at the last product', async () => {
    for (let i = 0; i < 4; i++) await create({ category: 'Four' });
    const first = await call('GET', '?category=Four&limit=2');
    const second = await call('GET', `?category=Four&limit=2&cursor=${first.body.nextCursor}`);
    expect([first.body.items.length, second.body.items.length, second.body.nextCursor]).toEqual([2, 2, null]);
  });

  it('refuse a cursor that was not handed out', async () => {
    const { nextCursor } = (await call('GET', '?limit=1')).body;
    const forged = [
      `${nextCursor}x`,
      'abc',
      nextCursor.slice(1),
      encodeCursor(['a', 'b']),
      encodeCursor([0, 1]),
      encodeCursor([2 ** 40, newId()]),
    ];
    for (const cursor of forged)
      expect(await call('GET', `?cursor=${encodeURIComponent(cursor)}`)).toMatchObject({
        status: 400,
        body: { code: 'CURSOR_INVALID' },
      });
  });
});

describe('the import', () => {
  let base: string;
  beforeAll(async () => {
    await shop.app.listen(0, '127.0.0.1');
    base = await shop.app.getUrl();
  });

  const upload = async (lines: Iterable<string>, type = 'application/x-ndjson') => {
    const answer = await fetch(`${base}/v1/products/import`, {
      method: 'POST',
      headers: { authorization: `Bearer ${staff}`, 'content-type': type },
      body: ReadableStream.from(
        (function* () {
          for (const line of lines) yield Buffer.from(`${line}\n`);
        })(),
      ),
      duplex: 'half',
    });
    return { status: answer.status, body: (await answer.json()) as AppAnswer['body'] };
  };

  it('creates, updates and leaves alone, by SKU', async () => {
    const products = Array.from({ length: 450 }, (_, i) => draft({ sku: `IMP-${i}`, name: `Imported ${i}` }));
    const lines = products.map((product) => JSON.stringify(product));
    const summary = { created: 0, updated: 0, unchanged: 0, failed: 0, errors: [] };
    expect(await upload(lines)).toMatchObject({ status: 200, body: { ...summary, created: 450 } });
    expect(await upload(lines)).toMatchObject({ status: 200, body: { ...summary, unchanged: 450 } });
    lines[7] = JSON.stringify({ ...products[7], price: { amount: 1, currency: 'EUR' } });
    expect(await upload(lines)).toMatchObject({ status: 200, body: { ...summary, updated: 1, unchanged: 449 } });
    const { body } = await call('GET', '?q=IMP-7');
    expect(body.items[0]).toMatchObject({ sku: 'IMP-7', version: 2, price: { amount: 1 } });
    expect((await eventsOf(body.items[0].id)).map((row) => row.type)).toEqual([
      'catalog.ProductCreated',
      'catalog.ProductUpdated',
    ]);
  });

  it('takes the lines of one SKU in their order', async () => {
    const line = (name: string) => JSON.stringify(draft({ sku: 'TWICE', name }));
    expect((await upload([line('A'), line('B'), line('B'), line('C')])).body).toMatchObject({
      created: 1,
      updated: 2,
      unchanged: 1,
    });
    expect(await find({ q: 'TWICE' })).toEqual(['C']);
  });

  it('reports broken lines by number and goes on', async () => {
    const good = () => JSON.stringify(draft({ category: 'Survivors' }));
    const { status, body } = await upload([good(), '{broken', '', JSON.stringify({ sku: 'x' }), '[]', good()]);
    expect(status).toBe(200);
    expect(body).toMatchObject({ created: 2, updated: 0, unchanged: 0, failed: 3 });
    expect(body.errors.map((error: { line: number }) => error.line)).toEqual([2, 4, 5]);
    expect(body.errors[1].detail).toContain('/name');
    expect(await find({ category: 'Survivors' })).toHaveLength(2);
  });

  it('lists the first hundred faults and counts the rest', async () => {
    const { body } = await upload(Array.from({ length: 250 }, () => 'x'));
    expect([body.failed, body.errors.length]).toEqual([250, 100]);
  });

  it('of nothing is nothing, and of something else 415', async () => {
    expect((await upload([])).body).toMatchObject({ created: 0, failed: 0 });
    expect((await upload(['{}'], 'application/json')).status).toBe(415);
    expect((await upload(['a,b'], 'text/csv')).status).toBe(415);
  });

  it('reads no faster than it writes', async () => {
    let sent = 0;
    const lines = (function* () {
      for (; sent < 4_000; sent++) yield JSON.stringify(draft({ description: 'long '.repeat(900) }));
    })();
    const [locked, writing] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const db = test.database('catalog');
    // Somebody else holds the owner's lock, as a change of owner does: no batch can be written.
    const blocked = db.transaction(undefined, async () => {
      await db.query(`select pg_advisory_xact_lock(hashtextextended('banyan.owner.catalog', 0))`);
      locked.resolve();
      await writing.promise;
    });
    await Promise.race([locked.promise, blocked]);
    const answer = upload(lines);
    await eventually(() => sent > 200, { timeoutMs: 20_000 });
    let before = -1;
    // Sending has come to a halt when nothing was taken for a while.
    for (let still = 0; still < 10; still = sent === before ? still + 1 : 0) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(sent).toBeLessThan(3_000);
    writing.resolve();
    await blocked;
    expect((await answer).body).toMatchObject({ created: 4_000, failed: 0 });
  });
});
