import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureContextDatabases } from '@banyan/platform/database';
import { startNats, startRedis } from '@banyan/testing/servers';
import { root } from '../support/program.mjs';
import { figure, median, quantile, table } from '../support/report.mjs';
import { startPostgres } from '../support/shop.mjs';
import { peersOf } from './peers.mjs';
import { runCase } from './rounds.mjs';

const OURS = 'banyan: outbox, relay, inbox';
const THROUGH_JETSTREAM = 'banyan: the same through JetStream';
const here = (file) => join(import.meta.dirname, file);

/** Durable hand-off: events/s in bulk, and how long a single one takes when nothing else happens. */
export async function benchEvents({ repeat, peers, quick }) {
  const size = { events: quick ? 5_000 : 30_000, batch: 1_000, singles: quick ? 40 : 200 };
  const postgres = await startPostgres('bench');
  let nats;
  try {
    nats = await startNats();
    const contestants = [
      [OURS, ours],
      [THROUGH_JETSTREAM, (...given) => ours(...given, nats)],
    ];
    if (peers) {
      contestants.push(['JetStream client alone', (_postgres, name, size) => rawJetStream(name, size, nats)]);
      const peer = await peerIn(await peersOf('events'));
      contestants.push(
        ['plain batched outbox (the floor)', peer.onPostgres],
        ['BullMQ on Postgres', peer.onPostgres],
        ['graphile-worker', peer.onPostgres],
      );
      if (await isRedisHere())
        contestants.push(
          ['BullMQ on Redis, nothing kept', peer.onRedis('appendonly no')],
          ['BullMQ on Redis, AOF each second', peer.onRedis('appendfsync everysec')],
        );
    }
    const results = new Map(contestants.map(([name]) => [name, []]));
    for (let turn = 0; turn < repeat; turn++)
      for (const [name, measure] of contestants) results.get(name).push(await measure(postgres, name, size));

    const perSecond = (name) => median(results.get(name).map((result) => result.perSecond));
    const rows = [...results].map(([name, runs]) => {
      const waits = runs.flatMap((result) => result.waits);
      return [
        name,
        figure(perSecond(name), 0),
        figure(quantile(waits, 0.5)),
        figure(quantile(waits, 0.99)),
        figure(median(runs.map(({ nodeUs }) => nodeUs))),
        figure(median(runs.map(({ serverUs }) => serverUs))),
        figure(perSecond(OURS) / perSecond(name)),
      ];
    });
    return {
      title: 'Durable hand-off of events',
      notes: [
        `${size.events} events in batches of ${size.batch}, and ${size.singles} single ones; medians of ${repeat} runs. Producer and consumer in one process.`,
        'NATS as it is delivered: a stream on disk, synced every two minutes. Server is Postgres, and NATS with it or alone.',
        'Postgres 18 with fsync and synchronous_commit on; the effect is a row in the inbox (banyan), nothing (all others).',
        'Latency is from before it is handed in, so it includes the commit, until its handler runs.',
      ],
      tables: [table(['hand-off', 'events/s', 'idle p50 ms', 'p99 ms', 'Node us', 'server us', 'ours / it'], rows)],
    };
  } finally {
    await nats?.stop();
    await postgres.stop();
  }
}

/** Else says how to get one. */
async function isRedisHere() {
  try {
    await (await startRedis()).stop();
    return true;
  } catch (error) {
    console.error(`BullMQ is measured on Postgres only. ${error.message}`);
    return false;
  }
}

const rawJetStream = (name, size, nats) =>
  runCase(here('events/jetstream.mjs'), name, {
    env: { BENCH_CASE: JSON.stringify({ natsUrl: nats.url, serverPids: [nats.pid], ...size }) },
  });

async function ours(postgres, name, size, nats) {
  const urls = await ensureContextDatabases({
    adminUrl: await postgres.database('bench_events'),
    contexts: ['orders', 'notifications'],
    side: 'monolith',
    migrationsDir: join(root, 'migrations'),
  });
  return runCase(here('events/case.mjs'), name, {
    env: {
      BENCH_CASE: JSON.stringify({
        urls,
        natsUrl: nats?.url,
        serverPids: [postgres.pid, ...(nats ? [nats.pid] : [])],
        ...size,
      }),
    },
  });
}

function peerIn(folder) {
  const run = (name, given) =>
    runCase(join(folder, 'case.mjs'), name, {
      cwd: folder,
      env: {
        BENCH_MEASURE: pathToFileURL(here('events/measure.mjs')).href,
        BENCH_CASE: JSON.stringify(given),
      },
    });
  return {
    onPostgres: async (postgres, name, size) =>
      run(name, { url: await postgres.database('bench_peer'), serverPids: [postgres.pid], ...size }),
    onRedis: (config) => async (_postgres, name, size) => {
      const redis = await startRedis({ config });
      try {
        return await run(name, { redisPort: redis.port, serverPids: [redis.pid], ...size });
      } finally {
        await redis.stop();
      }
    },
  };
}
