import { eventually } from '@banyan/testing';
import { headers } from '@nats-io/nats-core';
import { expect, inject, it } from 'vitest';
import { TestBroker, patiently } from './broker.spec-support.js';
import { type RunOptions, type Stream, joinStream, leaveStream, prepareStream, streamState } from './index.js';
import { historyOf } from './history.js';
import { LogStream, PLACE_HEADER, placeText } from './shared-log.js';
import { readSlot } from './slot.js';
import { lsnOf } from './stream.js';
import { type Running, TwoDatabases } from './two-databases.spec-support.js';

const nats = new TestBroker();
const both = new TwoDatabases(
  () => inject('adminUrl'),
  (stream) => nats.log(stream),
);

const patient = { timeoutMs: 30_000 };

const confirmed = async (slot: string) => {
  const [row] = await both.onSource<{ lsn: string }>(
    `select (confirmed_flush_lsn - '0/0')::text as lsn from pg_replication_slots where slot_name = $1`,
    [slot],
  );
  return BigInt(row!.lsn);
};
const feeds = async (slot: string) => (await readSlot(both.sourcePool, slot)).feeds;
const now = async () => {
  const [row] = await both.onSource<{ lsn: string }>(`select (pg_current_wal_flush_lsn() - '0/0')::text as lsn`);
  return BigInt(row!.lsn);
};

const mark = async (stream: Stream) => lsnOf((await streamState(stream)).appliedLsn!);
const join = (guest: Stream) => patiently(() => joinStream(guest, nats.log(guest.name)));

/** Ends it with all that it has published in the target: one that is held up for two seconds ends before that. */
async function endDrained(running: Running, options: RunOptions = {}): Promise<void> {
  const { stream } = running;
  for (let last = running; ;) {
    await last.stop();
    await both.idle(stream);
    if ((await mark(stream)) >= (await confirmed(stream.name))) return;
    last = both.run(stream, options);
    await last.caughtUp();
  }
}

it('carries transactions and rows that are longer than a message', async () => {
  await both.onBoth(`create schema long; create table long.t (id int primary key, v text)`);
  const stream = both.stream('long');
  const running = await both.start(stream);
  // 64 kB a message: each row takes several, and the transaction some sixty.
  await both.onSource(
    `insert into long.t select i, (select string_agg(md5(g::text || i), '') from generate_series(1, 6000) g) from generate_series(1, 20) i`,
  );
  await both.onSource(
    `begin; update long.t set id = -id where id % 2 = 0; delete from long.t where id % 3 = 0; commit`,
  );
  await running.caughtUp();
  await both.expectSame(stream, 't');
  expect(running.faults).toEqual([]);
});

it('lets several targets follow at their own pace; the source keeps no log for one that is away', async () => {
  await both.onBoth(`create schema pace; create table pace.t (id int primary key, n int)`);
  await both.onSource(`create schema guest; create table guest.t (id int primary key, n int)`);
  await both.onSource(`insert into pace.t select i, 0 from generate_series(1, 500) i`);
  const stream = both.stream('pace');
  const running = await both.start(stream);
  const guest = both.guest(stream, 'guest');
  await join(guest);
  const log = nats.log(stream.name, { publish: false });
  const following = both.run(guest, { log, chunkRows: 100 });
  await both.onSource(`update pace.t set n = 1 where id < 100`);
  await following.caughtUp();
  await both.expectSame(guest, 't');

  await following.stop();
  await both.onSource(`update pace.t set n = 2 where id < 200; delete from pace.t where id = 300`);
  await running.caughtUp();
  const before = await now();
  await both.onSource(`select pg_logical_emit_message(true, 'spec', '', true)`);
  await eventually(async () => (await confirmed(stream.name)) >= before, patient);
  expect(await both.onSource('select count(*)::int as n from guest.t where n = 2')).toEqual([{ n: 0 }]);
  expect(await streamState(guest)).toMatchObject({ reason: null });

  const again = both.run(guest, { log });
  await again.caughtUp();
  await both.expectSame(guest, 't');
  await both.expectSame(stream, 't');
  expect([...running.faults, ...following.faults, ...again.faults]).toEqual([]);
  await again.stop();
  await leaveStream(guest);
  await eventually(async () => (await streamState(stream)).state === 'streaming', patient);
});

it('goes on publishing while the target is away', async () => {
  await both.onBoth(`create schema away; create table away.t (id int primary key)`);
  const stream = both.stream('away');
  const running = await both.start(stream);
  await running.stop();
  const place = new URL(both.target).pathname.slice(1);
  await both.onSource(`alter database ${place} allow_connections false`);
  await both.onSource(`select pg_terminate_backend(pid) from pg_stat_activity where datname = $1`, [place]);
  // The spec's own are among them: one that ended late would do so in the middle of a question.
  const left = `select from pg_stat_activity where datname = $1`;
  await eventually(async () => (await both.onSource(left, [place])).length === 0, patient);
  const alone = both.run(stream);
  await both.onSource(`set synchronous_commit = on; insert into away.t select generate_series(1, 1000)`);
  const written = await now();
  await eventually(async () => (await confirmed(stream.name)) >= written, patient);
  expect(alone.problems.some(({ message }) => message.includes('target cannot be reached'))).toBe(true);
  await both.onSource(`alter database ${place} allow_connections true`);
  await alone.caughtUp();
  await both.expectSame(stream, 't');
});

it('is never lost when the target was away at the first run that publishes', async () => {
  await both.onBoth(`create schema first; create table first.t (id int primary key)`);
  const stream = both.stream('first');
  await (await both.start(stream, { log: undefined })).stop();
  await both.idle(stream);
  const alone = both.run({ ...stream, target: 'postgres://127.0.0.1:1/nobody' });
  await both.onSource(`set synchronous_commit = on; insert into first.t select generate_series(1, 1000)`);
  const written = await now();
  await eventually(async () => (await confirmed(stream.name)) >= written, patient);
  // As it is seen when the target is back, before a bridge has been there.
  expect(await streamState(stream)).toMatchObject({ state: 'streaming', reason: null });
  await alone.stop();
  await both.idle(stream);
  expect(await streamState(stream)).toMatchObject({ state: 'prepared', reason: null });
  const running = both.run(stream);
  await running.caughtUp();
  await both.expectSame(stream, 't');
  expect(running.faults).toEqual([]);
});

it('waits for NATS, and loses nothing when it is killed', async () => {
  await both.onBoth(`create schema killed; create table killed.t (id int primary key, n int)`);
  const stream = both.stream('killed');
  const running = await both.start(stream);
  for (let i = 0; i < 3; i++) {
    await both.onSource(`insert into killed.t select g, 0 from generate_series(${i * 1000}, ${i * 1000 + 900}) g`);
    if (i === 1) {
      const goOn = nats.server.pause();
      await both.onSource(`update killed.t set n = n + 1`);
      goOn();
    }
    await nats.server.restart();
    await both.onSource(`update killed.t set n = n + 1 where id % 2 = ${i % 2}`);
  }
  await running.caughtUp(60_000);
  await both.expectSame(stream, 't');
  await nats.server.kill();
  await both.onSource(`delete from killed.t where id < 100`);
  await eventually(() => running.problems.some(({ message }) => message.includes('NATS')), patient);
  expect(await both.onTarget('select count(*)::int as n from killed.t where id < 100')).toEqual([{ n: 100 }]);
  await nats.server.restart();
  await running.caughtUp(60_000);
  await both.expectSame(stream, 't');
}, 180_000);

it('refuses a publisher that does not know of what another one has published', async () => {
  await both.onBoth(`create schema twice; create table twice.t (id int primary key)`);
  const stream = both.stream('twice');
  const running = await both.start(stream);
  const log = nats.log(stream.name);
  const there = await LogStream.open(log);
  const history = await historyOf(both.sourcePool, stream.name);
  const intrude = async () => {
    const { lsn, seq } = await there.end(history);
    const head = headers();
    head.set(PLACE_HEADER, placeText({ from: lsn!, to: lsn, part: 0, at: Date.now(), ...history }));
    await nats.client.publish(log.subject, '', { headers: head, expect: { lastSequence: seq } });
    return true;
  };
  await eventually(intrude, patient);
  await both.onSource(`insert into twice.t values (1)`);
  const refused = () => running.problems.some(({ message }) => message.includes('wrong last sequence'));
  await eventually(refused, patient);
  await running.caughtUp();
  await both.expectSame(stream, 't');
});

it('names what was lost with a stream, once a target had not read all of it, and is mended by a new backfill', async () => {
  await both.onBoth(`create schema gone; create table gone.t (id int primary key)`);
  await both.onSource(`create schema behind; create table behind.t (id int primary key)`);
  const stream = both.stream('gone');
  let isOpen = true;
  const broker = {
    ...nats.broker,
    // Asked before each message.
    get connected() {
      return isOpen;
    },
  };
  const running = await both.start(stream, { log: nats.log(stream.name, { broker }) });
  const guest = both.guest(stream, 'behind');
  await join(guest);
  const log = nats.log(stream.name, { publish: false });
  const following = both.run(guest, { log });
  await following.caughtUp();
  await following.stop();
  await both.onSource(`insert into gone.t select generate_series(1, 100)`);
  await running.caughtUp();
  const written = await now();
  await both.onSource(`select pg_logical_emit_message(true, 'spec', '', true)`);
  await eventually(async () => (await confirmed(stream.name)) >= written, patient);

  // Nothing more is published, and the target reads all that was.
  isOpen = false;
  await both.onSource(`select pg_logical_emit_message(true, 'spec', '', true)`);
  await eventually(() => running.problems.some(({ message }) => message === 'There is no connection to NATS'), patient);
  const history = await historyOf(both.sourcePool, stream.name);
  await eventually(async () => {
    const { lsn } = await (await LogStream.open(log)).end(history);
    return (await mark(stream)) >= lsn!;
  }, patient);
  const manager = await nats.manager();
  await manager.streams.delete(log.stream);
  isOpen = true;
  await both.onSource(`insert into gone.t values (101)`);
  await running.caughtUp();
  await both.expectSame(stream, 't');
  await eventually(async () => (await manager.streams.info(log.stream)).state.messages > 0, patient);
  await expect(both.run(guest, { log }).ended()).rejects.toMatchObject({ code: 'STREAM_LOST' });
  expect(await streamState(guest)).toMatchObject({
    state: 'lost',
    reason: expect.stringContaining('lacks what comes after the mark'),
  });
  await join(guest);
  const mended = both.run(guest, { log });
  await mended.caughtUp();
  await both.expectSame(guest, 't');
  // Positions of a source that was made anew may look like ours.
  await mended.stop();
  await both.onSource(`update banyan_replication.mark set source = '1/' || stream`);
  await expect(both.run(guest, { log }).ended()).rejects.toThrow('the mark is of another source');
  expect(await streamState(guest)).toMatchObject({ state: 'lost' });
  await leaveStream(guest);
});

it('a stream that was emptied harms no target that had read all of it', async () => {
  await both.onBoth(`create schema emptied; create table emptied.t (id int primary key)`);
  const stream = both.stream('emptied');
  const log = nats.log(stream.name);
  await endDrained(await both.start(stream));
  await (await nats.manager()).streams.purge(log.stream);
  expect(await streamState(stream)).toMatchObject({ state: 'prepared' });
  const running = both.run(stream);
  await both.onSource(`insert into emptied.t values (1)`);
  await running.caughtUp();
  await both.expectSame(stream, 't');
  expect(running.faults).toEqual([]);
});

it('names the target that was too slow for what the stream keeps; the prompt one and the source go on', async () => {
  await both.onBoth(`create schema brim; create table brim.t (id int primary key, v text)`);
  await both.onSource(`create schema slow; create table slow.t (id int primary key, v text)`);
  const stream = both.stream('brim');
  const few = { maxBytes: 512 << 10 };
  const running = await both.start(stream, { log: nats.log(stream.name, few) });
  const guest = both.guest(stream, 'slow');
  const log = nats.log(stream.name, { ...few, publish: false });
  await join(guest);
  const following = both.run(guest, { log });
  await following.caughtUp();
  await following.stop();
  const { appliedLsn } = await streamState(guest);

  const manager = await nats.manager();
  const state = async () => (await manager.streams.info(log.stream)).state;
  const { first_seq: first } = await state();
  for (let i = 0; i < 12; i++) {
    await both.onSource(
      `insert into brim.t select ${i}, (select string_agg(md5(g::text || ${i}), '') from generate_series(1, 2000) g)`,
    );
    await running.caughtUp();
  }
  expect((await state()).first_seq).toBeGreaterThan(first);
  expect((await state()).bytes).toBeLessThanOrEqual(few.maxBytes);
  await both.expectSame(stream, 't');
  expect(running.faults).toEqual([]);
  const written = (await readSlot(both.sourcePool, stream.name)).now;
  await running.caughtUp();
  await eventually(async () => (await confirmed(stream.name)) >= written, patient);

  await expect(both.run(guest, { log }).ended()).rejects.toMatchObject({
    code: 'STREAM_LOST',
    detail: expect.stringContaining(`lacks what comes after the mark ${appliedLsn}`),
  });
  expect(await streamState(guest)).toMatchObject({ state: 'lost' });
  await leaveStream(guest);
});

it('names settings that are not ours, and goes on when they are', async () => {
  await both.onBoth(`create schema drift; create table drift.t (id int primary key)`);
  const stream = both.stream('drift');
  const log = nats.log(stream.name);
  const manager = await nats.manager();
  await manager.streams.add({ name: log.stream, subjects: [log.subject, 'something.else'], max_msgs: 1000 });
  await prepareStream(stream, { backfill: true });
  const running = both.run(stream);
  const problem = await eventually(
    () => running.problems.find(({ message }) => message.includes('other settings')),
    patient,
  );
  expect(problem.message).toContain(`max_msgs is 1000, not -1`);
  expect(problem.message).toContain('something.else');
  await manager.streams.delete(log.stream);
  await both.onSource(`insert into drift.t values (1)`);
  await running.caughtUp();
  await both.expectSame(stream, 't');

  // How much it keeps is no reason to stop.
  await running.stop();
  const warnings: string[] = [];
  const onWarning = (message: string) => void warnings.push(message);
  const larger = both.run(stream, { log: nats.log(stream.name, { maxBytes: log.maxBytes * 2 }), onWarning });
  await both.onSource(`insert into drift.t values (2)`);
  await larger.caughtUp();
  await both.expectSame(stream, 't');
  expect(larger.faults).toEqual([]);
  // Said whenever it opens.
  expect([...new Set(warnings)]).toEqual([
    expect.stringContaining(`max_bytes is ${log.maxBytes}, not ${log.maxBytes * 2}`),
  ]);
});

it('changes between the slot and a shared log while writes go on, and refuses to go back too early', async () => {
  await both.onBoth(`create schema swap; create table swap.t (id int primary key)`);
  const stream = both.stream('swap');
  const slot = { log: undefined };
  await endDrained(await both.start(stream, slot), slot);
  let next = 0;
  for (const options of [{}, slot, {}]) {
    await both.onSource(`insert into swap.t select generate_series(${next + 1}, ${(next += 500)})`);
    const running = both.run(stream, options);
    await both.onSource(`insert into swap.t select generate_series(${next + 1}, ${(next += 500)})`);
    await eventually(async () => (await both.onTarget('select from swap.t')).length >= next - 500, patient);
    await both.onSource(`insert into swap.t select generate_series(${next + 1}, ${(next += 500)})`);
    await endDrained(running, options);
    expect(running.faults).toEqual([]);
    expect(await feeds(stream.name)).toBe(options === slot ? undefined : `log-${stream.name}`);
  }
  // What the slot has let go of is in NATS only.
  await both.onTarget(`update banyan_replication.mark set lsn = '0/0'::pg_lsn + $2 where stream = $1`, [
    stream.name,
    String((await confirmed(stream.name)) - 1n),
  ]);
  await expect(both.run(stream, slot).ended()).rejects.toThrow(`in the stream log-${stream.name} of NATS`);
  const last = both.run(stream);
  await last.caughtUp();
  await both.expectSame(stream, 't');
});
