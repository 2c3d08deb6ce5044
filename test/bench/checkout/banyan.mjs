import { randomUUID } from 'node:crypto';
import { SHOP_ADDRESS, STAFF, shopOn } from '../../support/shop.mjs';
import { Connection } from './connection.mjs';

const PLENTY = 1_000_000;

/** The shop, with as many products as the peer has. A purchase is three requests: cart, order, wait for it. */
export async function banyan({ postgres, products, users, execArgv = [] }) {
  const databaseUrl = await postgres.database('bench_banyan');
  const shop = await shopOn({ databaseUrl, stateDir: postgres.stateDir, execArgv });
  const startMs = await shop.start();
  const staff = new Connection(shop.url);
  const token = async (account) => `Bearer ${(await staff.expect(200, 'POST', '/v1/auth/login', account)).accessToken}`;
  staff.headers = { authorization: await token(STAFF) };
  const lines = Array.from({ length: products * 3 }, (_, i) =>
    JSON.stringify({
      sku: `BENCH-${i}`,
      name: `Product ${i}`,
      description: `Product ${i}. ${'A sentence about it. '.repeat(8)}`,
      category: `Category ${i % 10}`,
      price: { amount: 1_000 + (i % 90) * 100, currency: 'EUR' },
    }),
  );
  await staff.expect(200, 'POST', '/v1/products/import', lines.join('\n'), { 'content-type': 'application/x-ndjson' });
  const stocked = products;
  const putStock = (sku, onHand) => staff.expect(200, 'PUT', `/v1/stock/${sku}`, { onHand });
  for (let i = 0; i < stocked; i++) await putStock(`BENCH-${i}`, PLENTY);
  const ids = [];
  for (let cursor; ids.length < products;) {
    const page = await staff.expect(200, 'GET', `/v1/products?limit=100${cursor ? `&cursor=${cursor}` : ''}`);
    ids.push(...page.items.map(({ id }) => id));
    cursor = page.nextCursor;
    if (!cursor) break;
  }
  // The cart's own copy of the catalogue is fed by events.
  for (
    let tries = 0;
    (await staff.send('PUT', `/v1/cart/items/BENCH-${products * 3 - 1}`, { quantity: 1 })).status !== 200;
    tries++
  ) {
    if (tries === 600) throw new Error('The products did not reach the cart');
    await new Promise((done) => setTimeout(done, 50));
  }
  const tokens = [];
  for (let i = 0; i < users; i++) {
    const account = { email: `buyer-${i}@bench.example`, password: 'correct horse battery' };
    await staff.expect(201, 'POST', '/v1/auth/register', { ...account, name: `Buyer ${i}` });
    tokens.push(await token(account));
  }
  const purchase = async (connection, sku) => {
    await connection.expect(200, 'PUT', `/v1/cart/items/${sku}`, { quantity: 1 });
    const body = { shippingAddress: SHOP_ADDRESS, paymentMethod: 'tok_ok' };
    const { id } = await connection.expect(201, 'POST', '/v1/orders', body, { 'idempotency-key': randomUUID() });
    return connection.expect(200, 'GET', `/v1/orders/${id}`, undefined, { prefer: 'wait=10' });
  };
  return {
    name: 'banyan',
    databaseUrl,
    startMs,
    pids: [shop.app.pid, shop.psp.pid],
    reader: () => new Connection(shop.url),
    read: (connection, random) => connection.expect(200, 'GET', `/v1/products/${random.one(ids)}`),
    /** Routed, admitted, checked and refused: all that the host does, and neither bus nor database. */
    refused: (connection) => connection.expect(400, 'GET', '/v1/products/none'),
    async buyer(i) {
      const connection = new Connection(shop.url);
      connection.headers = { authorization: tokens[i] };
      return connection;
    },
    async buy(connection, random) {
      const order = await purchase(connection, `BENCH-${random.below(stocked)}`);
      if (order.status === 'pending' || order.status === 'rejected') throw new Error(`an order is ${order.status}`);
    },
    /** Everybody at once wants one of `units`; answers how many got one. */
    async race(buyers, units) {
      const sku = `BENCH-${products * 3 - 1}`;
      await putStock(sku, units);
      const orders = await Promise.all(buyers.map((connection) => purchase(connection, sku)));
      return orders.filter(({ status }) => status !== 'rejected' && status !== 'pending').length;
    },
    async stop() {
      await staff.close();
      await shop.stop();
    },
  };
}
