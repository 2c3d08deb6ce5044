// Redis goes away under load and comes back: which routes are closed meanwhile, and what the others notice of it.
//   npm run outage                          200 requests a second, Redis gone for 30 s
//   npm run outage -- --gone=5 --beside=4   shorter
//   npm run outage -- --emptied             it comes back with nothing in it
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, request } from 'undici';
import pg from 'pg';
import { startRedis } from '@banyan/testing/servers';
import build from '../../tools/build.mjs';
import { Endings } from '../support/endings.mjs';
import { mintUsers } from '../support/mint.mjs';
import { figure, options, quantile, randomFrom, sameAgain, table } from '../support/report.mjs';
import { SHOP_ADDRESS, STAFF, shopOn, startPostgres } from '../support/shop.mjs';

const given = options(
  {
    /** Requests a second, however fast they are answered. */
    rate: 200,
    /** How long Redis is gone, and how long it is there before and after, s. */
    gone: 30,
    beside: 10,
    buyers: 40,
    emptied: false,
    seed: Math.floor(Math.random() * 2 ** 31),
    /** One JSON value at the end, and nothing else on standard output. */
    json: false,
    build: true,
  },
  process.argv.slice(2),
);
/** Of what is asked within this time after Redis went or came, either answer is right, ms. */
const SLACK = 1_000;
/** So soon after Redis is back everything is open again, ms. */
const OPEN_AGAIN = 5_000;
const WHEN = ['before', 'gone', 'after'];
/** So often every route is asked at least, whatever its share, and /readyz while Redis is gone, ms. */
const BEAT = 500;
/** So many looks at /readyz at least, or it was not looked at. */
const LOOKS = 3;

if (given.build) await build();
const say = (text) => (given.json ? console.error(text) : console.log(text));
const agent = new Agent({ connections: 128, headersTimeout: 30_000, bodyTimeout: 30_000 });
const random = randomFrom(given.seed);
const violations = [];
const endings = new Endings();
try {
  const { rows, figures } = await perform();
  say(`\n${table(['route', 'when', 'asked', 'answers', 'p50 ms', 'p99 ms', 'worst ms'], rows)}\n`);
  for (const each of violations.slice(0, 20)) say(`WRONG: ${each}`);
  say(`Sign-ins are open again ${figures.openAgainMs} ms after Redis is; ${figures.orders} orders, all delivered.`);
  if (violations.length > 0) say(`Again: npm run outage -- ${sameAgain(process.argv.slice(2), given.seed)}`);
  if (given.json) console.log(JSON.stringify({ ok: violations.length === 0, violations, figures }));
} finally {
  await endings.end();
}
process.exit(violations.length > 0 ? 1 : 0);

async function perform() {
  const redis = await endings.add(() => startRedis());
  const postgres = await endings.add(() => startPostgres('outage', ['fsync=off']));
  const databaseUrl = await postgres.database('banyan_outage');
  const shop = await shopOn({
    databaseUrl,
    stateDir: join(postgres.stateDir, 'state'),
    settings: {
      REDIS_URL: redis.url,
      BANYAN_RATE_LIMITS: 'on',
      BANYAN_CARRIER_DISPATCH_MS: '500',
      BANYAN_CARRIER_DELIVERY_MS: '500',
    },
  });
  await endings.add(() => shop);
  await shop.start();
  const sql = new pg.Client({ connectionString: databaseUrl });
  await endings.add(() => ({ stop: () => sql.end() }));
  await sql.connect();

  const buyers = await mintUsers(databaseUrl, given.buyers, () => ['customer']);
  const products = (await answerOf(shop.url, 'GET', '/v1/products?limit=100')).json.items;
  await sql.query('update inventory.stock_item set on_hand = on_hand + 1000000, received = received + 1000000');
  for (const buyer of buyers) await answerOf(shop.url, 'GET', '/v1/cart', { token: buyer.token });

  const routes = routesOf(products, buyers);
  const asked = [];
  const running = new Set();
  let when = 'before';
  let since = performance.now();
  const ask = (route) => {
    const at = performance.now();
    const note = { route: route.name, when, unsettled: at - since < SLACK };
    const work = route
      .ask(shop.url)
      .then(
        ({ status, json, retryAfter }) => Object.assign(note, { status, code: json?.code, retryAfter }),
        (error) => Object.assign(note, { status: error.code ?? error.message }),
      )
      .then(() => {
        // Redis went or came while it was under way.
        note.unsettled ||= when !== note.when;
        asked.push(Object.assign(note, { ms: performance.now() - at }));
        running.delete(work);
      });
    running.add(work);
  };
  const beat = Math.max(Math.round((given.rate * BEAT) / 1_000), routes.length);
  const load = async (seconds) => {
    const from = performance.now();
    for (let n = 0; n < seconds * given.rate; n++) {
      const due = from + (n * 1_000) / given.rate;
      const early = due - performance.now();
      if (early > 1) await sleep(early);
      ask(routes[n % beat] ?? draw(routes));
    }
  };

  await load(2);
  await Promise.all(running);
  asked.length = 0;
  say(`${given.rate} requests a second; Redis is there for ${given.beside} s`);
  since = -Infinity;
  await load(given.beside);
  say(`gone for ${given.gone} s`);
  when = 'gone';
  await redis.kill();
  since = performance.now();
  const looks = [];
  const looking = setInterval(() => {
    if (performance.now() - since >= SLACK) looks.push(probe(shop.internalUrl));
  }, BEAT);
  await load(given.gone);
  clearInterval(looking);
  const ready = await Promise.all(looks);
  when = 'after';
  await redis.restart({ emptied: given.emptied });
  since = performance.now();
  const openAgain = (async () => {
    while ((await signIn(shop.url).catch(() => undefined))?.status !== 200) await sleep(20);
    return Math.round(performance.now() - since);
  })();
  say(`back for ${given.beside} s`);
  await load(given.beside);
  await Promise.all(running);
  const openAgainMs = await Promise.race([openAgain, sleep(OPEN_AGAIN, 'never')]);
  const { orders, undelivered } = await delivered(sql);

  judge(asked, { ready, openAgainMs, undelivered });
  return { rows: rowsOf(asked), figures: { openAgainMs, orders, requests: asked.length, p99: p99Of(asked) } };
}

/** What people do, as often as they do it; `closed`: nobody passes while Redis is away. */
function routesOf(products, buyers) {
  const product = () => random.one(products);
  const by = () => random.one(buyers).token;
  const fillCart = (url, token) =>
    answerOf(url, 'PUT', `/v1/cart/items/${product().sku}`, { token, body: { quantity: 1 } });
  return [
    { name: 'product', share: 45, ask: (url) => answerOf(url, 'GET', `/v1/products/${product().id}`) },
    { name: 'products', share: 12, ask: (url) => answerOf(url, 'GET', '/v1/products?limit=20') },
    { name: 'search', share: 8, ask: (url) => answerOf(url, 'GET', `/v1/products?q=${product().name.split(' ')[0]}`) },
    { name: 'stock', share: 10, ask: (url) => answerOf(url, 'GET', `/v1/stock/${product().sku}`) },
    { name: 'cart', share: 10, ask: (url) => answerOf(url, 'GET', '/v1/cart', { token: by() }) },
    { name: 'put in cart', share: 10, ask: (url) => fillCart(url, by()) },
    {
      name: 'order',
      share: 3,
      // A cart may just have been ordered by somebody else with the same account.
      allowed: [201, 409],
      async ask(url) {
        const token = by();
        await fillCart(url, token);
        const body = { shippingAddress: SHOP_ADDRESS, paymentMethod: 'tok_ok' };
        return answerOf(url, 'POST', '/v1/orders', { token, body, key: crypto.randomUUID() });
      },
    },
    { name: 'orders', share: 1, ask: (url) => answerOf(url, 'GET', '/v1/orders', { token: by() }) },
    {
      name: 'register',
      share: 0.3,
      ask: (url) =>
        answerOf(url, 'POST', '/v1/auth/register', {
          body: { email: `${crypto.randomUUID()}@example.com`, password: 'correct horse battery', name: 'Pat' },
        }),
    },
    { name: 'sign in', share: 0.7, closed: true, ask: signIn },
  ];
}

function signIn(url) {
  return answerOf(url, 'POST', '/v1/auth/login', { body: STAFF });
}

function draw(routes) {
  let left = random.next() * routes.reduce((sum, { share }) => sum + share, 0);
  return routes.find(({ share }) => (left -= share) < 0) ?? routes[0];
}

async function answerOf(url, method, path, { token, body, key } = {}) {
  const {
    statusCode,
    headers,
    body: read,
  } = await request(url + path, {
    method,
    headers: {
      ...(token && { authorization: `Bearer ${token}` }),
      ...(body && { 'content-type': 'application/json' }),
      ...(key && { 'idempotency-key': key }),
    },
    body: body && JSON.stringify(body),
    dispatcher: agent,
  });
  const text = await read.text();
  return { status: statusCode, retryAfter: Number(headers['retry-after']), json: text ? JSON.parse(text) : undefined };
}

async function probe(url) {
  try {
    const { statusCode, body } = await request(`${url}/readyz`, { dispatcher: agent });
    return { status: statusCode, degraded: (await body.json()).degraded ?? [] };
  } catch (error) {
    return { status: error.code ?? error.message, degraded: [] };
  }
}

/** Everything that was ordered arrives, although the jobs that move it have waited. */
async function delivered(sql) {
  for (let tries = 0; ; tries++) {
    const { rows } = await sql.query(
      `select count(*)::int as orders, count(*) filter (where status <> 'delivered')::int as undelivered from orders.orders`,
    );
    if (rows[0].undelivered === 0 || tries > 120) return rows[0];
    await sleep(250);
  }
}

function judge(asked, { ready, openAgainMs, undelivered }) {
  const routes = new Map(routesOf([{}], [{}]).map((route) => [route.name, route]));
  for (const { route, when, unsettled, status, code, retryAfter } of asked) {
    const { closed, allowed = [200, 201] } = routes.get(route);
    const shut = closed && when === 'gone';
    const open = allowed.includes(status) && (!shut || unsettled);
    const said = status === 503 && code === 'UPSTREAM_UNAVAILABLE' && retryAfter > 0;
    const refused = said && (shut || (closed && unsettled));
    if (open || refused) continue;
    violations.push(`${route}, ${when}: ${status} ${code ?? ''}`);
  }
  for (const name of routes.keys())
    for (const phase of WHEN)
      if (!asked.some((each) => each.route === name && each.when === phase && !each.unsettled))
        violations.push(`${name}, ${phase}: not asked`);
  if (ready.length < LOOKS) violations.push(`only ${ready.length} looks at /readyz while Redis was gone`);
  for (const { status, degraded } of ready)
    if (status !== 200 || !degraded.some((each) => each.startsWith('redis')))
      violations.push(`/readyz while Redis was gone: ${status} ${degraded}`);
  if (openAgainMs === 'never') violations.push(`nobody could sign in ${OPEN_AGAIN} ms after Redis was back`);
  if (undelivered > 0) violations.push(`${undelivered} orders were never delivered`);
}

function rowsOf(asked) {
  return routesOf([{}], [{}]).flatMap(({ name }) =>
    WHEN.map((phase) => {
      const some = asked.filter(({ route, when }) => route === name && when === phase);
      const statuses = Map.groupBy(some, ({ status }) => status);
      const told = [...statuses].map(([status, { length }]) => `${length} × ${status}`).join(', ');
      const ms = some.map((each) => each.ms);
      return [name, phase, some.length, told, ...[0.5, 0.99, 1].map((q) => figure(quantile(ms, q)))];
    }),
  );
}

/** Of everything that is not closed. */
function p99Of(asked) {
  const open = asked.filter(({ route }) => route !== 'sign in');
  return Object.fromEntries(
    WHEN.map((phase) => [
      phase,
      quantile(
        open.filter(({ when }) => when === phase).map(({ ms }) => ms),
        0.99,
      ),
    ]),
  );
}
