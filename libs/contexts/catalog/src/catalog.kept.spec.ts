import { type Product, catalog } from '@banyan/contracts';
import { newId } from '@banyan/kernel';
import { type ContextApp, type ServerProcess, contextApp, eventually, startRedis, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { CatalogModule } from './catalog.module.js';

/* Two instances on one database and one Redis. Each test changes rows behind the catalog's back: what still comes as it
   was came from the cache. */
const test = testDatabase({ contexts: ['catalog'] });

let redis: ServerProcess;
let shops: ContextApp[];
let staff: string;

beforeAll(async () => {
  redis = await startRedis();
  const open = () =>
    contextApp({
      test,
      module: CatalogModule,
      contracts: [catalog],
      settings: { BANYAN_RATE_LIMITS: 'off', REDIS_URL: redis.url },
    });
  shops = [await open(), await open()];
  staff = await shops[0]!.tokenOf(newId(), 'staff');
});
afterAll(async () => {
  await Promise.all((shops ?? []).map((shop) => shop.close()));
  await redis?.stop();
});

/** Less than the half minute for which a value is believed by itself, ms. */
const patient = { timeoutMs: 15_000 };

let skus = 0;
async function create(category = 'Things'): Promise<Product> {
  const body = { sku: `K-${++skus}`, name: 'As it was', category, price: { amount: 100, currency: 'EUR' } };
  return (await shops[0]!.request('POST', '/v1/products', { token: staff, body })).body as Product;
}
const read = async (shop: ContextApp, id: string) =>
  (await shop.request('GET', `/v1/products/${id}`)).body.name as string;
const list = async (shop: ContextApp, category: string) =>
  (await shop.request('GET', `/v1/products?category=${category}`)).body.items.map(({ name }: Product) => name).join();
const behindItsBack = (id: string, name: string) =>
  test.admin('update catalog.product set name = $2 where id = $1', [id, name]);
const rename = async (shop: ContextApp, { id, version }: Product, name: string) => {
  const headers = { 'if-match': `"${version}"` };
  const { status } = await shop.request('PATCH', `/v1/products/${id}`, { token: staff, headers, body: { name } });
  expect(status).toBe(200);
};

it('products and their first pages come from the cache, on every instance', async () => {
  // Each keeps from when its messages come; and where Redis is not on time, it is done without.
  await eventually(async () => {
    const category = `Kept-${++skus}`;
    const product = await create(category);
    for (const shop of shops) await Promise.all([read(shop, product.id), list(shop, category)]);
    await behindItsBack(product.id, 'Changed');
    for (const shop of shops) {
      expect(await read(shop, product.id)).toBe('As it was');
      expect(await list(shop, category)).toBe('As it was');
    }
    return true;
  }, patient);
});

it('whoever changes one sees that at once, and everybody else a moment later', async () => {
  const product = await create('Renamed');
  for (const shop of shops) await Promise.all([read(shop, product.id), list(shop, 'Renamed')]);
  await rename(shops[0]!, product, 'New');
  expect([await read(shops[0]!, product.id), await list(shops[0]!, 'Renamed')]).toEqual(['New', 'New']);
  await eventually(async () => (await read(shops[1]!, product.id)) === 'New', patient);
  await eventually(async () => (await list(shops[1]!, 'Renamed')) === 'New', patient);
});

it('a new product is in the lists, also when it was imported', async () => {
  await create('Listed');
  await Promise.all(shops.map((shop) => list(shop, 'Listed')));
  const line = { sku: `K-${++skus}`, name: 'Imported', category: 'Listed', price: { amount: 100, currency: 'EUR' } };
  const headers = { 'content-type': 'application/x-ndjson' };
  const token = await shops[1]!.tokenOf(newId(), 'staff');
  const imported = { token, headers, body: JSON.stringify(line) };
  expect((await shops[1]!.request('POST', '/v1/products/import', imported)).status).toBe(200);
  for (const shop of shops)
    await eventually(async () => (await list(shop, 'Listed')) === 'As it was,Imported', patient);
});

it('a change that is rolled back makes nobody forget, and a product that is not there is not kept', async () => {
  const id = newId();
  expect((await shops[0]!.request('GET', `/v1/products/${id}`)).status).toBe(404);
  expect((await shops[0]!.request('GET', `/v1/products/${id}`)).status).toBe(404);
  await eventually(async () => {
    const product = await create('Stale');
    await read(shops[0]!, product.id);
    await behindItsBack(product.id, 'Changed');
    const headers = { 'if-match': '"7"' };
    const stale = { token: staff, headers, body: { name: 'Never' } };
    expect((await shops[0]!.request('PATCH', `/v1/products/${product.id}`, stale)).status).toBe(412);
    return (await read(shops[0]!, product.id)) === 'As it was';
  }, patient);
});
