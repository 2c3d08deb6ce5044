import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { dropStream, prepareStream } from '@banyan/replication';
import { startNats } from '@banyan/testing/servers';
import { figure, median, table } from '../support/report.mjs';
import { startPostgres } from '../support/shop.mjs';
import { runCase } from './rounds.mjs';

const SCHEMA = `
  create schema bench;
  create table bench.item (
    id uuid primary key, sku text not null, name text not null, quantity int not null, price bigint not null,
    currency char(3) not null, at timestamptz(3) not null, note text, data jsonb);
  create table bench.done (id int primary key)`;
const row = (i) =>
  `md5('${i.salt}' || ${i.n})::uuid, 'SKU-' || ${i.n}, 'a thing with a name ' || ${i.n}, ${i.n} % 100, ${i.n} * 10, 'EUR', now(),
   case when ${i.n} % 3 = 0 then null else 'a note of some length about thing ' || ${i.n} end, json_build_object('n', ${i.n})::jsonb`;

/** Work that waits in the log when a contestant begins: each is a list of [SQL to run on the source]. */
const backlogs = {
  'inserts, 10 rows a transaction': (rows) => `
    do $$ begin for t in 0 .. ${rows / 10 - 1} loop
      insert into bench.item select ${row({ salt: 'i', n: '(t * 10 + g)' })} from generate_series(1, 10) g; commit;
    end loop; end $$`,
  'updates, one row a transaction': (rows) => `
    do $$ declare key uuid; n int := 0; begin
      for key in select id from bench.item order by sku limit ${rows} loop
        update bench.item set quantity = quantity + 1 where id = key; commit;
      end loop; end $$`,
  'one transaction of everything': () => `update bench.item set quantity = quantity + 1, note = 'x'`,
};

/** How fast a target catches up with a backlog, and copies a table, against Postgres' own logical subscription. */
export async function benchBridge({ repeat, quick }) {
  const rows = quick ? 10_000 : 100_000;
  const copied = quick ? 50_000 : 400_000;
  const postgres = await startPostgres('bench');
  let nats;
  try {
    // As `banyan nats-config` has it.
    nats = await startNats({ config: 'max_payload: 8MB' });
    const results = new Map();
    const note = (what, who, result) => {
      const key = JSON.stringify([what, who]);
      results.set(key, [...(results.get(key) ?? []), result]);
    };
    for (let turn = 0; turn < repeat; turn++) {
      await catchUp(postgres, nats, rows, note);
      await copy(postgres, copied, note);
    }
    const runs = (what, who) => results.get(JSON.stringify([what, who]));
    const usOf = ({ us }) => us;
    const whats = [...new Set([...results.keys()].map((key) => JSON.parse(key)[0]))];
    return {
      title: 'Bridge: rows applied a second',
      notes: [
        `${rows} rows of backlog (9 columns, about 200 bytes), ${copied} rows copied, medians of ${repeat} runs, taking turns.`,
        'Beside it: CREATE SUBSCRIPTION on the same server, same tables, its defaults (binary off, synchronous_commit off).',
        'Through JetStream: the slot is read into a stream, the stream into the target, by one process, and nats-server keeps it on disk.',
        'All begin with everything waiting; it ends when the last row is visible in the target. Node us: CPU of the bridge for one row.',
      ],
      tables: [
        table(
          [
            ...['what', 'bridge rows/s', 'subscription rows/s', 'bridge / it', 'Node us'],
            ...['through JetStream rows/s', 'of the bridge', 'its Node us'],
          ],
          whats.map((what) => {
            const middle = (who, of) => median(runs(what, who).map(of));
            const [ours, theirs] = ['bridge', 'subscription'].map((who) => middle(who, (run) => run.perSecond));
            const first = [
              what,
              figure(ours, 0),
              figure(theirs, 0),
              figure(ours / theirs),
              figure(middle('bridge', usOf)),
            ];
            // A copy does not go through the log.
            if (!runs(what, 'shared')) return [...first, '–', '–', '–'];
            const shared = middle('shared', (run) => run.perSecond);
            return [...first, figure(shared, 0), figure(shared / ours), figure(middle('shared', usOf))];
          }),
        ),
      ],
    };
  } finally {
    await nats?.stop();
    await postgres.stop();
  }
}

async function catchUp(postgres, nats, rows, note) {
  await nats.restart({ emptied: true });
  await withDatabases(postgres, async ({ source, native, ours, shared, urls }) => {
    const [stream, through] = ['ours', 'shared'].map((name) => ({
      ...{ name: `bench_${name}`, source: urls.source, target: urls[name], schema: 'bench' },
    }));
    for (const each of [stream, through]) await prepareStream(each, { backfill: false });
    await source.query('create publication bench_native for tables in schema bench');
    await source.query(`select pg_create_logical_replication_slot('bench_native', 'pgoutput')`);
    await native.query(
      `create subscription bench_native connection '${urls.source.replaceAll("'", "''")}' publication bench_native
         with (create_slot = false, slot_name = 'bench_native', enabled = false, copy_data = false)`,
    );
    let lap = 0;
    for (const [what, backlog] of Object.entries(backlogs)) {
      lap += 1;
      await source.query(backlog(rows));
      await source.query(`insert into bench.done values (${lap})`);
      await source.query('checkpoint');
      const done = `select from bench.done where id = ${lap}`;
      const us = async () => note(what, 'bridge', await runOurs(stream, done, rows));
      const they = async () => {
        const from = performance.now();
        await native.query('alter subscription bench_native enable');
        await until(native, done);
        note(what, 'subscription', { perSecond: (rows * 1000) / (performance.now() - from) });
        await native.query('alter subscription bench_native disable');
        await until(source, `select from pg_replication_slots where slot_name = 'bench_native' and not active`);
      };
      const usThrough = async () => note(what, 'shared', await runOurs(through, done, rows, nats.url));
      for (const turn of lap % 2 ? [us, they, usThrough] : [usThrough, they, us]) await turn();
    }
    const sums = await Promise.all([source, native, ours, shared].map(sumOf));
    if (new Set(sums).size > 1) throw new Error(`The copies differ: ${sums.join(' ')}`);
    await native.query('drop subscription bench_native');
    for (const each of [stream, through]) await dropStream(each);
  });
}

async function copy(postgres, rows, note) {
  await withDatabases(postgres, async ({ source, native, ours, urls }) => {
    await source.query(
      `insert into bench.item select ${row({ salt: 'c', n: 'g' })} from generate_series(1, ${rows}) g`,
    );
    await source.query('vacuum analyze bench.item');
    await source.query('checkpoint');
    await source.query('create publication bench_native for tables in schema bench');
    await source.query(`select pg_create_logical_replication_slot('bench_native', 'pgoutput')`);
    await native.query(
      `create subscription bench_native connection '${urls.source.replaceAll("'", "''")}' publication bench_native
         with (create_slot = false, slot_name = 'bench_native', enabled = false)`,
    );
    const stream = { name: 'bench_ours', source: urls.source, target: urls.ours, schema: 'bench' };
    await prepareStream(stream, { backfill: true });
    const what = 'initial copy';
    const done = `select from banyan_replication.mark where stream = 'bench_ours'
      and not exists (select from banyan_replication.backfill where not done)`;
    note(what, 'bridge', await runOurs(stream, done, rows));
    const from = performance.now();
    await native.query('alter subscription bench_native enable');
    await until(native, `select where not exists (select from pg_subscription_rel where srsubstate not in ('r', 's'))`);
    note(what, 'subscription', { perSecond: (rows * 1000) / (performance.now() - from) });
    const sums = await Promise.all([source, native, ours].map(sumOf));
    if (new Set(sums).size > 1) throw new Error(`The copies differ: ${sums.join(' ')}`);
    await native.query('drop subscription bench_native');
    await dropStream(stream);
  });
}

async function runOurs(stream, done, rows, natsUrl) {
  const { ms, cpuMs } = await runCase(join(import.meta.dirname, 'bridge/case.mjs'), 'bridge', {
    env: { BENCH_CASE: JSON.stringify({ stream, done, natsUrl }) },
    limitMs: 180_000,
  });
  return { perSecond: (rows * 1000) / ms, us: (cpuMs * 1000) / rows };
}

async function withDatabases(postgres, work) {
  const urls = {
    source: await postgres.database('bench_source'),
    native: await postgres.database('bench_native'),
    ours: await postgres.database('bench_ours'),
    shared: await postgres.database('bench_shared'),
  };
  const clients = {};
  for (const [name, connectionString] of Object.entries(urls)) {
    clients[name] = new pg.Client({ connectionString });
    await clients[name].connect();
    await clients[name].query(SCHEMA);
  }
  // Postgres' own client reads no URL with a parameter for Node's.
  const plain = new URL(postgres.url);
  plain.pathname = '/bench_source';
  try {
    return await work({ ...clients, urls: { ...urls, source: plain.href } });
  } finally {
    await Promise.all(Object.values(clients).map((client) => client.end()));
  }
}

async function until(client, query) {
  while ((await client.query(query)).rowCount === 0) await sleep(10);
}

async function sumOf(client) {
  const { rows } = await client.query(
    `select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) as sum from bench.item t`,
  );
  return rows[0].sum;
}
