import { join } from 'node:path';
import { EmbeddedPostgres } from '@banyan/platform/database';
import { amidLateCommits, eventually, projectRoot } from '@banyan/testing';
import pg from 'pg';
import { afterAll, expect, it } from 'vitest';
import { type Broker, prepareStream, runStream, streamState } from './index.js';
import { TwoDatabases } from './two-databases.spec-support.js';

/* On a server of its own: these faults are settings of a whole server. */
const server = EmbeddedPostgres.start({
  stateDir: join(projectRoot, '.banyan', 'test-replication'),
  port: 54_335,
  shared: true,
  settings: [
    'fsync=off',
    'synchronous_commit=local',
    'max_slot_wal_keep_size=16MB',
    'max_wal_size=32MB',
    'min_wal_size=32MB',
  ],
});
afterAll(async () => (await server).stop()); // hooks run in reverse: after the databases were dropped
const both = new TwoDatabases(async () => (await server).url);
const patient = { timeoutMs: 20_000 };

it('reads a chunk again that missed a transaction which the stream had applied already', async () => {
  await both.onBoth(`create schema race; create table race.t (id int primary key, v text)`);
  await both.onSource(`insert into race.t select i, 'old' from generate_series(1, 2000) i`);
  const stream = both.stream('race');
  await prepareStream(stream, { backfill: true });
  let reached = 0;
  let release!: () => void;
  const held = new Promise<void>((resolve) => (release = resolve));
  // The stream stops in front of the first chunk until the late commit is in the log; two chunks are read ahead of it.
  await both.onSource(`select pg_logical_emit_message(true, 'hold', '', true)`);
  const running = both.run(stream, { chunkRows: 100, onMessage: { hold: async () => void (reached++, await held) } });
  await eventually(() => reached > 0, patient);

  const late = new pg.Client({ connectionString: stream.source });
  await late.connect();
  const { rows } = await late.query<{ pid: number }>('select pg_backend_pid() as pid');
  const values = async () => [
    (await both.onSource('select v from race.t where id = 2000'))[0]?.v,
    (await both.onTarget('select v from race.t where id = 2000'))[0]?.v,
  ];
  try {
    await amidLateCommits(both.onSource.bind(both), async (letCommit) => {
      await late.query('set synchronous_commit = on');
      const commit = late.query(`update race.t set v = 'new' where id = 2000`);
      await eventually(async () => {
        const waiting = await both.onSource(`select from pg_stat_activity where pid = $1 and wait_event = 'SyncRep'`, [
          rows[0]!.pid,
        ]);
        return waiting.length === 1;
      }, patient);
      expect((await values())[0]).toBe('old');
      release();
      await eventually(async () => (await values())[1] === 'new', patient);
      // Time enough for every chunk to be read, had none been refused.
      await new Promise((resolve) => setTimeout(resolve, 500));
      const { backfill } = await streamState(stream);
      expect(backfill!.done).toBe(false);
      expect(backfill!.rows).toBeLessThanOrEqual(200);
      await letCommit();
      await commit;
    });
  } finally {
    await late.end();
  }
  await running.caughtUp();
  await both.expectSame(stream, 't');
});

it.each(['the target', 'NATS'])('warns of a slot that retains much while %s is away', async (away) => {
  const schema = away === 'NATS' ? 'nats_away' : 'target_away';
  await both.onBoth(`create schema ${schema}; create table ${schema}.t (id int primary key)`);
  const stream = both.stream(schema);
  await prepareStream(stream, { backfill: false });
  await both.onSource(`create table if not exists public.noise (v text)`);
  await eventually(async () => {
    await both.onSource(
      `insert into public.noise select repeat(md5(random()::text), 30) from generate_series(1, 1000)`,
    );
    return (await streamState(stream)).retainedBytes > 9 << 20;
  }, patient);
  const broker: Broker = { connection: undefined!, connected: false, maxPayload: 1 << 20, onChange: () => () => {} };
  const warnings: string[] = [];
  const running = both.run(away === 'NATS' ? stream : { ...stream, target: 'postgres://127.0.0.1:1/nobody' }, {
    onWarning: (message) => void warnings.push(message),
    ...(away === 'NATS' && { log: { broker, stream: 'away', subject: 'away', maxBytes: 1, publish: true } }),
  });
  await eventually(() => warnings.length > 0, { timeoutMs: 30_000 });
  expect(warnings[0]).toMatch(new RegExp(`The slot ${stream.name} retains \\d+ MB of log; at 16 MB it is lost`));
  await eventually(() => running.problems.length > 0, patient);
});

it('notices that the source threw its log away, and is mended by a new backfill', async () => {
  await both.onBoth(`create schema full_disk; create table full_disk.t (id int primary key, v text)`);
  const stream = both.stream('full_disk');
  await (await both.start(stream)).stop();
  await both.idle(stream);
  await both.onSource(`create table if not exists public.noise (v text)`);
  await eventually(
    async () => {
      await both.onSource(
        `insert into public.noise select repeat(md5(random()::text), 30) from generate_series(1, 20000)`,
      );
      await both.onSource('select pg_switch_wal()');
      await both.onSource('checkpoint');
      return (await streamState(stream)).state === 'lost';
    },
    { timeoutMs: 60_000 },
  );
  await both.onSource(`insert into full_disk.t values (1, 'unseen')`);
  expect((await streamState(stream)).reason).toContain('max_slot_wal_keep_size');
  await expect(runStream(stream)).rejects.toMatchObject({ code: 'STREAM_LOST' });
  const running = await both.start(stream);
  await both.expectSame(stream, 't');
  expect(running.faults).toEqual([]);
});
