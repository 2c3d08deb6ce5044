import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { Caller } from '../chaos/http.mjs';
import { figure, randomFrom } from '../support/report.mjs';
import { SHOP_ADDRESS, STAFF } from '../support/shop.mjs';
import { Control } from './control.mjs';
import { Findings } from './findings.mjs';
import { CONTEXTS, Stack, until } from './stack.mjs';

/** What `banyan extract` may take on an idle, freshly started shop. */
const EXTRACT_LIMIT_MS = 120_000;

/**
 * Something that a customer or staff does, and how many rows of the context show it. While the context is live the row
 * is in the service's database; it comes to the monolith's only because the bridge brings it.
 */
const TRACES = {
  identity: {
    act: async (shop) => (await shop.register()).json.id,
    rows: 'select count(*)::int as n from identity.user_account where id = $1',
  },
  catalog: {
    act: async (shop) => {
      const { id, version } = (await shop.call('GET', '/v1/products?limit=1')).json.items[0];
      const name = `Renamed ${randomUUID()}`;
      await shop.staff('PATCH', `/v1/products/${id}`, { body: { name }, headers: { 'if-match': `"${version}"` } });
      return name;
    },
    rows: 'select count(*)::int as n from catalog.product where name = $1',
  },
  inventory: {
    act: async (shop) => {
      const onHand = 2_000_000 + shop.random.below(1e6);
      await shop.staff('PUT', `/v1/stock/${shop.goods[0].sku}`, { body: { onHand } });
      return onHand;
    },
    rows: 'select count(*)::int as n from inventory.stock_item where on_hand = $1',
  },
  orders: { act: (shop) => shop.buy(), rows: 'select count(*)::int as n from orders.orders where id = $1' },
  payments: { act: (shop) => shop.buy(), rows: 'select count(*)::int as n from payments.payment where order_id = $1' },
  shipping: { act: (shop) => shop.buy(), rows: 'select count(*)::int as n from shipping.shipment where order_id = $1' },
  notifications: {
    act: (shop) => shop.buy(),
    rows: 'select least(count(*), 1)::int as n from notifications.message where order_id = $1',
  },
};

/** Each context leaves an idle shop and comes back, by the command line; purchases go on all the time. */
export async function perform({ seed, say, contexts, logs, endings }) {
  const findings = new Findings(['answered', 'owner', 'books', 'stages', 'processes']);
  const results = [];
  for (const context of contexts.split(',')) {
    const stack = new Stack();
    const stop = () => stack.stop({ keepLogs: logs });
    await endings.add(() => ({ stop }));
    try {
      say(`${context}: the shop answers after ${((await stack.start()) / 1_000).toFixed(1)} s`);
      results.push(await tour(stack, context, { findings, say, random: randomFrom(seed) }));
    } catch (error) {
      findings.wrong('stages', `${context}: ${error.message}`);
    } finally {
      const code = await stop();
      if (code !== 0) findings.wrong('processes', `${context}: banyan up ended with ${code}`);
    }
  }
  // These callers send again what was not answered; on an idle shop nothing has to be.
  for (const [why, times] of Object.entries(Caller.resent))
    if (times > 0) findings.wrong('answered', `sent again because of ${why}: ${times} times`);
  return {
    findings,
    logs,
    figures: { results },
    rows: results.map(({ context, out, back, flag }) => [
      `${context}: out, back, out by flag, s`,
      [out, back, flag].map((ms) => (ms === undefined ? '–' : figure(ms / 1_000, 1))).join(' / '),
    ]),
  };
}

async function tour(stack, context, { findings, say, random }) {
  const result = { context };
  // Idle: not even a customer has come before it is live.
  result.out = await byCommand(stack, findings, 'extract', context, '--to', 'live');
  say(`${context} is live after ${(result.out / 1_000).toFixed(1)} s`);
  const shop = await Shop.open(stack, findings, random);
  await traced(stack, context, 'service', shop, findings);
  await shop.buyAndFollow();
  result.back = await byCommand(stack, findings, 'rollback', context);
  say(`${context} is back after ${(result.back / 1_000).toFixed(1)} s`);
  await traced(stack, context, 'monolith', shop, findings);
  await shop.buyAndFollow();
  if (context === 'inventory') {
    result.flag = await byFlag(stack, context, findings);
    say(`${context} is live after ${(result.flag / 1_000).toFixed(1)} s, by its flag`);
    await shop.buyAndFollow();
    await byFlag(stack, context, findings, 'monolith');
  }
  return result;
}

async function byCommand(stack, findings, ...command) {
  const from = performance.now();
  const { code, last, complained } = await stack.cli(...command);
  const ms = performance.now() - from;
  if (code !== 0 || last?.ok !== true)
    findings.wrong('stages', `banyan ${command.join(' ')} ended with ${code}: ${JSON.stringify(last)} ${complained}`);
  if (ms > EXTRACT_LIMIT_MS) findings.wrong('stages', `banyan ${command.join(' ')} took ${Math.round(ms / 1_000)} s`);
  return ms;
}

/** The admin calls that Unleash has: a strategy with one variant of the flag says where the context is to go. */
async function byFlag(stack, context, findings, stage = 'live') {
  const from = performance.now();
  const feature = `/api/admin/projects/default/features/extraction.${context}`;
  const call = async (method, path, body) => {
    const response = await fetch(stack.controlUrls[0] + path, {
      method,
      headers: { authorization: stack.operatorToken, ...(body && { 'content-type': 'application/json' }) },
      body: body && JSON.stringify(body),
    });
    if (!response.ok) findings.wrong('stages', `${method} ${path}: ${response.status} ${await response.text()}`);
  };
  const environment = `${feature}/environments/development`;
  if (stage === 'monolith') await call('POST', `${environment}/off`);
  else {
    const variant = { name: stage, weight: 1000, weightType: 'variable', stickiness: 'default' };
    await call('PUT', `${environment}/variants`, [variant]);
    await call('POST', `${environment}/on`);
  }
  const control = new Control(stack);
  const there = await until(async () => (await control.status(context))?.stage === stage, EXTRACT_LIMIT_MS, 200);
  if (!there)
    findings.wrong(
      'stages',
      `the flag did not take ${context} to ${stage}: ${JSON.stringify(await control.status(context))}`,
    );
  return performance.now() - from;
}

/** What is done now is written by the owner only: with the bridge stopped, the other side does not have it. */
async function traced(stack, context, owner, shop, findings) {
  const { act, rows } = TRACES[context];
  const bridge = stack.signal('SIGSTOP', 'bridge', context);
  let what;
  try {
    what = await act(shop);
    if (!(await until(async () => (await count(stack.adminUrl(owner, context), rows, what)) === 1, 15_000, 100)))
      findings.wrong('owner', `what was done is not in the database of the ${owner} of ${context}`);
    if (owner === 'service' && (await count(stack.adminUrl('monolith'), rows, what)) !== 0)
      findings.wrong('owner', `${context} is live, and the monolith has written it too`);
  } finally {
    if (bridge !== undefined) process.kill(bridge, 'SIGCONT');
  }
  if (owner === 'monolith') return;
  if (!(await until(async () => (await count(stack.adminUrl('monolith'), rows, what)) === 1, 15_000, 100)))
    findings.wrong('books', `what was done while ${context} was live did not come back to the monolith`);
}

async function count(connectionString, text, value) {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query(text, [value])).rows[0].n;
  } finally {
    await client.end();
  }
}

/** One customer and one of staff. */
class Shop {
  static async open(stack, findings, random) {
    const shop = new Shop();
    const complain = (text) => findings.wrong('answered', text);
    const caller = () => new Caller(stack.urls, { random, giveUp: () => false, complain });
    Object.assign(shop, { findings, random, customer: caller(), employee: caller() });
    shop.employee.token = (await shop.employee.call('POST', '/v1/auth/login', { body: STAFF })).json.accessToken;
    const { items } = (await shop.employee.call('GET', '/v1/products?limit=20')).json;
    shop.goods = items.filter(({ price }) => price.currency === 'EUR');
    await shop.register();
    return shop;
  }

  call(method, path, more) {
    return this.customer.call(method, path, more);
  }

  async staff(method, path, more) {
    const answer = await this.employee.call(method, path, more);
    if (answer.status >= 400) throw new Error(`${method} ${path} was answered ${answer.status}: ${answer.text}`);
    return answer;
  }

  /** A new customer, who is the one that buys from now on. */
  async register() {
    const account = { email: `${randomUUID()}@cutover.example`, password: 'correct horse battery' };
    const registered = await this.call('POST', '/v1/auth/register', { body: { ...account, name: 'A customer' } });
    this.customer.token = (await this.call('POST', '/v1/auth/login', { body: account })).json.accessToken;
    return registered;
  }

  async buy() {
    const { sku } = this.random.one(this.goods);
    await this.call('PUT', `/v1/cart/items/${sku}`, { body: { quantity: 1 } });
    const order = await this.call('POST', '/v1/orders', {
      body: { shippingAddress: SHOP_ADDRESS, paymentMethod: 'tok_ok' },
      key: randomUUID(),
    });
    if (order.status !== 201) throw new Error(`an order was answered ${order.status}: ${order.text}`);
    return order.json.id;
  }

  async buyAndFollow() {
    const id = await this.buy();
    const read = async () => (await this.call('GET', `/v1/orders/${id}`)).json.status;
    if (!(await until(async () => (await read()) === 'delivered', 30_000, 250)))
      this.findings.wrong('books', `an order stays ${await read()}`);
  }
}
