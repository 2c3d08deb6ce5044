// Others that hand work over durably, each as its documents say it is fast; the handler does nothing.
import pg from 'pg';

const { measureHandOff } = await import(process.env.BENCH_MEASURE);
const { url, redisPort, ...measure } = JSON.parse(process.env.BENCH_CASE);
const CONCURRENCY = 50;

/** BullMQ is the same code on either backend. */
async function bullmq(backend) {
  const { Queue, Worker, withBackend, createPostgresBackend } = await import('bullmq');
  const onPostgres = backend === 'postgres';
  const classes = onPostgres ? withBackend(createPostgresBackend) : { Queue, Worker };
  const connection = onPostgres
    ? { connectionString: url, migrate: true }
    : { host: '127.0.0.1', port: redisPort, maxRetriesPerRequest: null };
  const queue = new classes.Queue('bench', { connection, defaultJobOptions: { removeOnComplete: true, attempts: 3 } });
  queue.on('error', () => {});
  await queue.waitUntilReady();
  let worker;
  return {
    async start(handle) {
      worker = new classes.Worker('bench', (job) => handle(job.data), { connection, concurrency: CONCURRENCY });
      worker.on('error', () => {});
      await worker.waitUntilReady();
    },
    put: (payloads) => queue.addBulk(payloads.map((data) => ({ name: 'event', data }))),
    putOne: (data) => queue.add('event', data),
    async stop() {
      await worker.close();
      await queue.close();
    },
  };
}

/** With a local queue of 500 and completions in batches: its documents' way to be fast. */
async function graphileWorker() {
  const { Logger, makeWorkerUtils, run } = await import('graphile-worker');
  const logger = new Logger(() => () => {});
  const preset = {
    worker: {
      connectionString: url,
      concurrentJobs: CONCURRENCY,
      maxPoolSize: 20,
      logger,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    },
  };
  const utils = await makeWorkerUtils({ preset, logger });
  await utils.migrate();
  let runner;
  return {
    async start(handle) {
      runner = await run({ preset, taskList: { event: (data) => handle(data) }, noHandleSignals: true });
    },
    put: (payloads) => utils.addJobs(payloads.map((payload) => ({ identifier: 'event', payload }))),
    putOne: (payload) => utils.addJob('event', payload),
    async stop() {
      await runner.stop();
      await utils.release();
    },
  };
}

/** The least that an outbox can do: insert and notify; delete a batch, handle it, commit. No inbox, no order, no retry. */
async function plainOutbox() {
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  await pool.query('create table outbox (id bigint generated always as identity primary key, payload jsonb not null)');
  const insert = {
    name: 'put',
    text: `with put as (insert into outbox (payload) select unnest($1::jsonb[])) select pg_notify('outbox', '')`,
  };
  const take = {
    name: 'take',
    text: `delete from outbox where id = any(array(select id from outbox order by id limit 500 for update skip locked)) returning payload`,
  };
  let listener;
  let running = true;
  let wake = () => {};
  let loop;
  return {
    async start(handle) {
      let news = false;
      listener = new pg.Client({ connectionString: url });
      await listener.connect();
      listener.on('notification', () => {
        news = true;
        wake();
      });
      await listener.query('listen outbox');
      const client = await pool.connect();
      loop = (async () => {
        while (running) {
          news = false;
          await client.query('begin');
          const { rows } = await client.query(take);
          for (const { payload } of rows) await handle(payload);
          await client.query('commit');
          if (rows.length === 0 && !news && running) await new Promise((done) => (wake = done));
        }
        client.release();
      })();
    },
    put: (payloads) => pool.query({ ...insert, values: [payloads.map((payload) => JSON.stringify(payload))] }),
    putOne: (payload) => pool.query({ ...insert, values: [[JSON.stringify(payload)]] }),
    async stop() {
      running = false;
      wake();
      await loop;
      await listener.end();
      await pool.end();
    },
  };
}

const contestants = {
  'plain batched outbox (the floor)': plainOutbox,
  'BullMQ on Redis, nothing kept': () => bullmq('redis'),
  'BullMQ on Redis, AOF each second': () => bullmq('redis'),
  'BullMQ on Postgres': () => bullmq('postgres'),
  'graphile-worker': graphileWorker,
};
await measureHandOff(await contestants[process.argv[2]](), measure);
