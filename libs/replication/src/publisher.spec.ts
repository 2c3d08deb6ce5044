import { eventually } from '@banyan/testing';
import { headers } from '@nats-io/nats-core';
import pg from 'pg';
import { expect, inject, it } from 'vitest';
import { TestBroker, patiently, transaction } from './broker.spec-support.js';
import { historyOf } from './history.js';
import { prepareStream, streamState } from './index.js';
import { LogStream, PLACE_HEADER, placeOf, placeText } from './shared-log.js';
import { readSlot } from './slot.js';
import { TwoDatabases } from './two-databases.spec-support.js';

const nats = new TestBroker();
const both = new TwoDatabases(
  () => inject('adminUrl'),
  (stream) => nats.log(stream),
);
const patient = { timeoutMs: 30_000 };

it.each(['server', 'slot', 'timeline'])('begins anew where NATS has the log of another %s', async (kind) => {
  await both.onBoth(`create schema other_${kind}; create table other_${kind}.t (id int primary key)`);
  const stream = both.stream(`other_${kind}`);
  await prepareStream(stream, { backfill: false });
  await both.onSource(`insert into other_${kind}.t select generate_series(1, 10)`);
  const { source, timeline } = await historyOf(both.sourcePool, stream.name);
  const others = {
    server: { source: `1/${stream.name}`, timeline },
    slot: { source: `${source}_too`, timeline },
    timeline: { source, timeline: timeline + 1 },
  };
  // It ends where this slot stands already: by its positions alone it could be ours.
  const log = nats.log(stream.name);
  await patiently(async () => (await LogStream.open(log)).declare());
  const { slot, now } = await readSlot(both.sourcePool, stream.name);
  const head = headers();
  const place = { from: slot!.confirmed, to: now, part: 0, at: Date.now() };
  head.set(PLACE_HEADER, placeText({ ...place, ...others[kind as keyof typeof others] }));
  await nats.client.publish(log.subject, transaction(now, 'of another'), { headers: head });

  const met: string[] = [];
  const running = both.run(stream, { onMessage: { p: async (_, content) => void met.push(content) } });
  await both.onSource(`insert into other_${kind}.t values (11)`);
  await running.caughtUp();
  await both.expectSame(stream, 't');
  expect(met).toEqual([]);
  expect(running.faults).toEqual([]);
});

it('stops at once in the middle of a transaction that goes in parts, and goes on with it', async () => {
  await both.onBoth(`create schema midst; create table midst.t (id int primary key, v text)`);
  const stream = both.stream('midst');
  const log = nats.log(stream.name);
  const running = await both.start(stream);
  let stopping = 0;
  // Heard with the answer that the next part waits for, or with the one after it; there are some eighty.
  const parts = log.broker.connection.subscribe(log.subject, {
    callback: (_, message) => {
      if (stopping || placeOf(message.headers).part <= 10) return;
      stopping = performance.now();
      void running.stop();
    },
  });
  await both.onSource(`insert into midst.t select i, repeat(md5(i::text), 30) from generate_series(1, 5000) i`);
  expect(await running.ended()).toBe('signal');
  parts.unsubscribe();
  // Who waits for the rest of a transaction does so for 15 s.
  expect(performance.now() - stopping).toBeLessThan(12_000);
  const { streams } = await nats.manager();
  const { state } = await streams.info(log.stream);
  const last = await streams.getMessage(log.stream, { seq: state.last_seq });
  expect(placeOf(last?.header)).toMatchObject({ to: undefined, part: expect.toSatisfy((n) => n > 10) });
  expect(await both.onTarget('select from midst.t')).toEqual([]);
  // Nobody is left who holds a lock.
  const left = `select from pg_stat_activity where application_name = $1`;
  await eventually(async () => (await both.onTarget(left, [`banyan:${stream.name}`])).length === 0, patient);
  await both.idle(stream);
  expect(await streamState(stream)).toMatchObject({ state: 'prepared', reason: null });

  const next = both.run(stream);
  await next.caughtUp();
  await both.expectSame(stream, 't');
});

it('sees what another process has published until the slot was taken back from it', async () => {
  await both.onBoth(`create schema back; create table back.t (id int primary key)`);
  const stream = both.stream('back');
  await (await both.start(stream)).stop();
  await both.idle(stream);
  const publishing = both.run({ ...stream, target: 'postgres://127.0.0.1:1/nobody' });
  await eventually(async () => (await streamState(stream)).active, patient);

  // A new table that is in use holds up whoever adds it to the publication.
  await both.onBoth(`create table back.late (id int primary key)`);
  const user = new pg.Client({ connectionString: stream.source });
  await user.connect();
  await user.query('begin; lock table back.late');
  // Up to here the target has everything, and the slot stands at no later place.
  const goOn = nats.server.pause();
  const before = await readSlot(both.sourcePool, stream.name);
  await both.onTarget(`update banyan_replication.mark set lsn = '0/0'::pg_lsn + $2 where stream = $1`, [
    stream.name,
    String(before.now),
  ]);
  const alone = both.run(stream, { log: undefined });
  try {
    const waits = `select from pg_stat_activity where wait_event_type = 'Lock' and query like 'alter publication%'
      and datname = current_database()`;
    await eventually(async () => (await both.onSource(waits)).length === 1, patient).finally(goOn);
    await both.onSource(`insert into back.t select generate_series(1, 100)`);
    const { now } = await readSlot(both.sourcePool, stream.name);
    await both.onSource(`select pg_logical_emit_message(true, 'spec', '', true)`);
    await eventually(async () => (await readSlot(both.sourcePool, stream.name)).slot!.confirmed >= now, patient);
  } finally {
    await user.end();
  }
  await expect(alone.ended()).rejects.toThrow(`in the stream log-${stream.name} of NATS`);
  expect(await streamState(stream)).toMatchObject({ reason: null });
  await publishing.stop();
  const running = both.run(stream);
  await running.caughtUp();
  await both.expectSame(stream, 't', 'late');
});
