import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { freePort } from '@banyan/testing/servers';
import { Program } from '../support/program.mjs';
import { figure, median, quantile, randomFrom, table } from '../support/report.mjs';
import { startPostgres } from '../support/shop.mjs';
import { banyan } from './checkout/banyan.mjs';
import { Connection } from './checkout/connection.mjs';
import { populateVendure, vendure } from './checkout/vendure.mjs';
import { cpuOfServer } from './events/measure.mjs';

const PRODUCTS = 1_000;
const RACERS = 32;
const UNITS = 10;
/** By then the simulated carrier has dispatched and delivered what was bought, ms. */
const DELIVERED_MS = 16_000;

/** Whole purchases and product pages a second, and what one of each costs. */
export async function benchCheckout({ repeat, peers, quick, users, profile }) {
  const window = quick ? { warmMs: 1_500, ms: 3_000 } : { warmMs: 4_000, ms: 8_000 };
  const settings = [
    'shared_preload_libraries=pg_stat_statements',
    'pg_stat_statements.track=top',
    'pg_stat_statements.track_planning=off',
  ];
  const postgres = await startPostgres('bench', settings);
  const admin = new pg.Client({ connectionString: postgres.url });
  await admin.connect();
  try {
    await admin.query('create extension if not exists pg_stat_statements');
    const execArgv = profile ? ['--cpu-prof', `--cpu-prof-dir=${join(postgres.stateDir, '..', 'bench-profile')}`] : [];
    const given = { postgres, products: quick ? 200 : PRODUCTS, users: Math.max(users, RACERS) };
    const contestants = [['banyan', () => banyan({ ...given, execArgv })]];
    if (peers) {
      console.error('Filling the database of Vendure …');
      const populated = await populateVendure(given);
      contestants.push(['Vendure 3.7.3', () => vendure({ ...given, populated })]);
    }
    const results = new Map(contestants.map(([name]) => [name, []]));
    for (let turn = 0; turn < repeat; turn++)
      for (const [name, start] of contestants) {
        const shop = await start();
        try {
          results.get(name).push(
            await measureShop(shop, {
              users,
              window,
              postgres,
              admin,
              last: turn === repeat - 1,
            }),
          );
        } finally {
          await shop.stop();
        }
      }
    const host = await measureHost(postgres, users, window);
    return report({ results, host, users, repeat, window });
  } finally {
    await admin.end();
    await postgres.stop();
  }
}

async function measureShop(shop, { users, window, postgres, admin, last }) {
  const result = { startMs: shop.startMs };
  const costs = () => ({ app: cpuOf(shop.pids), postgres: cpuOfServer(postgres.pid), load: cpuOfLoad() });
  const readers = Array.from({ length: users }, () => ({
    connection: shop.reader(),
    random: randomFrom(Math.random() * 1e9),
  }));
  result.read = await closedLoop(readers, ({ connection, random }) => shop.read(connection, random), window, costs);
  if (shop.refused)
    result.refused = await closedLoop(readers, ({ connection }) => shop.refused(connection), window, costs);
  const buyers = [];
  for (let i = 0; i < Math.max(users, RACERS); i++)
    buyers.push({ connection: await shop.buyer(i), random: randomFrom(i + 1) });
  result.buy = await closedLoop(
    buyers.slice(0, users),
    ({ connection, random }) => shop.buy(connection, random),
    window,
    costs,
  );
  if (last) {
    await quiet(admin, shop.databaseUrl);
    result.readSql = await statementsOf(admin, shop.databaseUrl, { times: 50, settleMs: 2_000 }, () =>
      shop.read(readers[0].connection, readers[0].random),
    );
    result.buySql = await statementsOf(admin, shop.databaseUrl, { times: 20, settleMs: DELIVERED_MS }, () =>
      shop.buy(buyers[0].connection, buyers[0].random),
    );
    result.sold = await shop.race(
      buyers.slice(0, RACERS).map(({ connection }) => connection),
      UNITS,
    );
  }
  for (const { connection } of [...readers, ...buyers]) await connection.close();
  return result;
}

/** As many users as given, each without a pause between two calls. What ends inside the window counts. */
async function closedLoop(users, call, { warmMs, ms }, costs) {
  const waits = [];
  let [counting, over, failures] = [false, false, 0];
  let failure;
  const loops = users.map(async (user) => {
    while (!over) {
      const from = performance.now();
      try {
        await call(user);
        if (counting) waits.push(performance.now() - from);
      } catch (error) {
        failure = error;
        failures++;
        await sleep(5);
      }
    }
  });
  await sleep(warmMs);
  const [before, from] = [costs(), performance.now()];
  counting = true;
  await sleep(ms);
  counting = false;
  const seconds = (performance.now() - from) / 1_000;
  const after = costs();
  over = true;
  await Promise.all(loops);
  if (failure) console.error(`${failures} calls failed, such as: ${failure.message}`);
  const cost = (name) => ((after[name] - before[name]) * 1_000) / waits.length;
  return {
    perSecond: waits.length / seconds,
    p50: quantile(waits, 0.5),
    p99: quantile(waits, 0.99),
    failures,
    appUs: cost('app'),
    postgresUs: cost('postgres'),
    loadUs: cost('load'),
  };
}

/** SQL statements of one operation, as pg_stat_statements counts them, less what the shop sends when nothing happens. */
async function statementsOf(admin, databaseUrl, { times, settleMs }, operation) {
  const count = () => statementsSent(admin, databaseUrl);
  for (let i = 0; i < 3; i++) await operation();
  await quiet(admin, databaseUrl);
  const [idleFrom, idleAt] = [await count(), performance.now()];
  await sleep(settleMs);
  const perMs = ((await count()) - idleFrom) / (performance.now() - idleAt);
  const [from, at] = [await count(), performance.now()];
  for (let i = 0; i < times; i++) await operation();
  const direct = (await count()) - from - perMs * (performance.now() - at);
  await sleep(settleMs);
  const all = (await count()) - from - perMs * (performance.now() - at);
  return { direct: direct / times, all: all / times };
}

async function statementsSent(admin, databaseUrl) {
  const database = new URL(databaseUrl).pathname.slice(1);
  const { rows } = await admin.query(
    'select coalesce(sum(calls), 0)::float8 as calls from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = $1',
    [database],
  );
  return rows[0].calls;
}

/** Waits until what the load has left behind is done: no more than a few statements in a second, for at most 40 s. */
async function quiet(admin, databaseUrl) {
  let calm = Infinity;
  for (let seconds = 0; seconds < 40; seconds++) {
    const before = await statementsSent(admin, databaseUrl);
    await sleep(1_000);
    const sent = (await statementsSent(admin, databaseUrl)) - before;
    if (seconds >= 15 && sent < calm * 1.5) return;
    calm = Math.min(calm, sent);
  }
}

async function measureHost(postgres, users, window) {
  const port = await freePort();
  const host = new Program({
    main: 'test/bench/checkout/bare-host.mjs',
    log: join(postgres.stateDir, 'host.log'),
    env: { PORT: String(port) },
  });
  await host.start();
  const costs = () => ({ app: cpuOf([host.pid]), postgres: 0, load: cpuOfLoad() });
  const connections = Array.from({ length: users }, () => new Connection(`http://127.0.0.1:${port}`));
  const result = await closedLoop(
    connections,
    (connection) => connection.expect(200, 'GET', '/hello/7'),
    window,
    costs,
  );
  for (const connection of connections) await connection.close();
  await host.stop();
  return result;
}

function cpuOf(pids) {
  return pids.reduce((sum, pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return sum + (Number(fields[11]) + Number(fields[12])) * 10;
  }, 0);
}

function cpuOfLoad() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

function report({ results, host, users, repeat, window }) {
  const [ours] = results.keys();
  const of = (name, what, field) => median((results.get(name) ?? []).map((result) => result[what]?.[field]));
  const row = (label, name, what) => [
    label,
    figure(of(name, what, 'perSecond')),
    figure(of(name, what, 'p50')),
    figure(of(name, what, 'p99')),
    figure(of(name, what, 'appUs'), 0),
    figure(of(name, what, 'postgresUs'), 0),
    figure(of(name, what, 'loadUs'), 0),
    figure(of(ours, what, 'perSecond') / of(name, what, 'perSecond'), 1),
  ];
  const names = [...results.keys()];
  const rows = [
    ...names.map((name) => row(`purchase, ${name}`, name, 'buy')),
    ...names.map((name) => row(`product page, ${name}`, name, 'read')),
    row(`bad request (400), ${ours}`, ours, 'refused'),
    [
      'bare Nest on Fastify',
      figure(host.perSecond),
      figure(host.p50),
      figure(host.p99),
      figure(host.appUs, 0),
      '–',
      figure(host.loadUs, 0),
      '–',
    ],
  ];
  const last = names.map((name) => {
    const result = results.get(name).at(-1);
    const { readSql, buySql, sold } = result;
    return [
      name,
      figure(readSql.direct, 1),
      figure(buySql.direct, 1),
      figure(buySql.all, 1),
      `${sold} of ${UNITS}`,
      figure(median(results.get(name).map(({ startMs }) => startMs)), 0),
    ];
  });
  return {
    title: `Checkout, ${users} users`,
    notes: [
      `Closed loop on one machine with its load; ${window.ms / 1_000} s after ${window.warmMs / 1_000} s of warming up; medians of ${repeat} starts.`,
      'banyan: 3 requests a purchase (cart, order, wait until confirmed), its application CPU includes the payment provider. Vendure: 5 requests, no provider.',
      `SQL statements by pg_stat_statements, BEGIN and COMMIT included, less what is sent when idle. The race: ${RACERS} users at once want ${UNITS} units.`,
    ],
    tables: [
      table(
        ['operation', 'a second', 'p50 ms', 'p99 ms', 'app CPU us', 'Postgres CPU us', 'load CPU us', 'ours / it'],
        rows,
      ),
      table(['shop', 'SQL a page', 'SQL a purchase', 'with delivery', 'sold in the race', 'start ms'], last),
    ],
  };
}
