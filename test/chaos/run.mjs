// The app is killed at random instants, again and again, while customers buy. Afterwards nothing may be missing and
// nothing may be there twice.
//   npm run chaos -- --kills=60 --orders=2000 --seed=42
//   npm run chaos -- --engines      a fleet on NATS, Redis and Unleash, all of which get killed
import { setTimeout as sleep } from 'node:timers/promises';
import build from '../../tools/build.mjs';
import { Endings } from '../support/endings.mjs';
import { figure, options, randomFrom, sameAgain, table } from '../support/report.mjs';

const given = options(
  {
    seed: Math.floor(Math.random() * 2 ** 31),
    kills: 60,
    orders: 2_000,
    customers: 24,
    /** Mean time that the app lives, ms. */
    every: 1_500,
    /** Longest run, and longest wait for rest after the load, s. */
    limit: 900,
    rest: 150,
    keep: false,
    engines: false,
    build: true,
  },
  process.argv.slice(2),
);
if (given.build) await build();
const { fillShelves } = await import('../support/shelves.mjs');
const { OneApp } = await import('./one-app.mjs');
const { Fleet } = await import('./fleet.mjs');
const { Book, Customer } = await import('./customer.mjs');
const { Caller } = await import('./http.mjs');
const { Verdict } = await import('./verdict.mjs');

const began = performance.now();
const seconds = () => (performance.now() - began) / 1_000;
const say = (text) => console.log(`${seconds().toFixed(0).padStart(4)} s  ${text}`);
const late = () => seconds() > given.limit;
/* First nobody begins anything new; only a run that takes too long leaves requests without an answer. */
let closing = false;
const isOver = () => closing || late();

console.log(`seed ${given.seed}: ${given.kills} kills, ${given.orders} orders, ${given.customers} customers`);
let shop;
let verdict;
let failed = true;
const endings = new Endings();

try {
  failed = !(await main());
} catch (error) {
  console.error(error);
} finally {
  await endings.end();
}
process.exit(failed ? 1 : 0);

async function main() {
  const random = randomFrom(given.seed);
  shop = await (given.engines ? Fleet : OneApp).open({
    endings,
    keep: given.keep,
    settings: {
      BANYAN_CARRIER_DISPATCH_MS: '500',
      BANYAN_CARRIER_DELIVERY_MS: '500',
      PSP_TIMEOUT_MS: '400',
      PSP_HANG_MS: '5000',
      PSP_3DS_AUTO_MS: '300',
    },
  });
  const book = new Book();
  const ms = await shop.start((text) => book.wrong(text));
  say(`the shop answers after ${figure(ms)} ms, with an empty database`);

  verdict = new Verdict(shop.databaseUrl, book);
  await endings.add(() => ({
    stop() {
      closing = true;
      return verdict.close();
    },
  }));
  const { goods, stock } = await openShop(random, book);
  // Neither runs far ahead of the other, so that every kill meets load.
  const ordersPerKill = given.orders / given.kills;
  const mayOrder = () => book.orders.size < given.orders && book.orders.size <= (assassin.kills + 1.5) * ordersPerKill;
  const mayKill = () => book.orders.size >= (assassin.kills - 1) * ordersPerKill;
  const assassin = shop.assassin({
    random: randomFrom(given.seed + 1),
    kills: given.kills,
    every: given.every,
    mayKill,
  });
  const customers = [];
  for (let i = 0; i < given.customers; i++)
    customers.push(
      await Customer.register(i, {
        shop,
        random: randomFrom(given.seed + 100 + i),
        giveUp: late,
        isOver,
        book,
        goods,
        mayOrder,
      }),
    );
  say(`${customers.length} customers, ${goods.plenty.length} products, and ${goods.scarce.length} scarce ones`);

  await shop.prepare();

  const progress = setInterval(
    () =>
      say(
        `${assassin.kills} kills, ${book.orders.size} orders, sent again ${sum(Caller.resent)}, violations ${book.violations.size}`,
      ),
    5_000,
  );
  const loadBegan = seconds();
  const buying = customers.map((customer) => customer.shop());
  await Promise.all([assassin.work(isOver), untilOrdered(book)]);
  closing = true;
  // What has begun is brought to its end: a client never leaves without knowing.
  await Promise.all(buying);
  clearInterval(progress);
  const loadSeconds = seconds() - loadBegan;
  await shop.settle();
  say(`load over: ${assassin.kills} kills, ${book.orders.size} orders; waiting until nothing moves`);
  const rested = await rest();

  const outcome = await verdict.reach({ stock, journal: shop.journal });
  const stats = await (await fetch(`${shop.pspUrl}/stats`)).json();
  if (stats.duplicates.length > 0) verdict.violations.push(`the provider reports double charges: ${stats.duplicates}`);
  const code = await shop.stop();
  if (code !== 0) verdict.violations.push(`the shop did not stop in order (${code})`);
  if (assassin.kills < given.kills) verdict.violations.push(`only ${assassin.kills} of ${given.kills} kills in time`);
  if (outcome.orders < given.orders)
    verdict.violations.push(`only ${outcome.orders} of ${given.orders} orders in time`);
  const violations = [
    ...[...book.violations].map(([text, times]) => `${text} (${times} times)`),
    ...verdict.violations,
  ];

  console.log(
    `\n${table(
      ['what', 'figure'],
      [
        ['seed', given.seed],
        ...shop.figures(assassin),
        ['orders answered 201', book.orders.size],
        ['delivered / rejected / cancelled', `${outcome.delivered} / ${outcome.rejected} / ${outcome.cancelled}`],
        ['asked again with the same key, same answer', book.replays],
        ['sent again: connection / 503 / in progress', Object.values(Caller.resent).join(' / ')],
        ['load, s', figure(loadSeconds)],
        ['until nothing moved, s', figure(rested)],
        ['whole run, s', figure(seconds())],
        ['violations', violations.length],
      ],
    )}`,
  );
  for (const violation of violations) console.log(`VIOLATION: ${violation}`);
  console.log(
    violations.length === 0
      ? 'Nothing is missing, and nothing is there twice.'
      : `Again: npm run chaos -- ${sameAgain(process.argv.slice(2), given.seed)}`,
  );
  return violations.length === 0;
}

/** The goods by SKU; carts take what their own copy of the catalogue knows, and it is fed by events. */
async function openShop(random, book) {
  const staff = new Caller(shop.urls, { random, giveUp: late, complain: (text) => book.wrong(text) });
  const { scarce, plenty, stock } = await fillShelves(staff);
  while (Object.keys(await verdict.stillMoving()).length > 0 && !late()) await sleep(100);
  const skus = (products) => products.map(({ sku }) => sku);
  return { goods: { scarce: skus(scarce), plenty: skus(plenty) }, stock };
}

async function untilOrdered(book) {
  while (!isOver() && book.orders.size < given.orders) await sleep(50);
}

/** Waits until nothing moves any more, at most `--rest` seconds; answers how long it took. */
async function rest() {
  const from = seconds();
  for (let told = from; seconds() - from < given.rest;) {
    const left = await verdict.stillMoving();
    if (Object.keys(left).length === 0) return seconds() - from;
    if (seconds() - told > 10) {
      told = seconds();
      say(`still moving: ${JSON.stringify(left)}`);
    }
    await sleep(250);
  }
  verdict.violations.push(`still moving after ${given.rest} s: ${JSON.stringify(await verdict.stillMoving())}`);
  return NaN;
}

function sum(counts) {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}
