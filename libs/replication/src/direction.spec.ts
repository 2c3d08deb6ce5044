import { eventually } from '@banyan/testing';
import { expect, it } from 'vitest';
import { type MappedRow, type Mapping, prepareStream, runStream, streamState } from './index.js';
import { throughEachLog } from './two-databases.spec-support.js';

const patient = { timeoutMs: 20_000 };

throughEachLog((both) => {
  it('turns round at a message in the log, at once and without an echo', async () => {
    await both.onBoth(`
    create schema turn;
    create table turn.t (id int primary key, v text);
    create table turn.banyan_owner (epoch bigint);
    insert into turn.banyan_owner values (1)`);
    await both.onSource(`insert into turn.t select i, 'first' from generate_series(1, 1000) i`);
    const there = both.stream('turn');
    const back = both.reverse(there);
    await prepareStream(there, { backfill: true });
    const forward = both.run(there, {
      onMessage: {
        handover: async (tx, content) => {
          await tx.query('update turn.banyan_owner set epoch = $1', [Number(content)]);
          return 'end';
        },
      },
    });
    await forward.caughtUp();
    await prepareStream(back, { backfill: false });
    // Writes up to the last moment, the message behind them, and one that comes too late.
    for (let i = 0; i < 50; i++) await both.onSource(`update turn.t set v = 'w${i}' where id = ${i + 1}`);
    await both.onSource(`select pg_logical_emit_message(true, 'handover', '7')`);
    expect(await forward.ended()).toBe('message');
    expect(await both.onTarget('select epoch::int from turn.banyan_owner')).toEqual([{ epoch: 7 }]);
    await both.expectSame(there, 't');

    const reverse = both.run(back);
    await both.onTarget(`update turn.t set v = 'back' where id <= 500; delete from turn.t where id = 1000`);
    await reverse.caughtUp();
    await both.expectSame(there, 't');

    // Both run at once: what one applies never comes back through the other.
    const again = both.run(there);
    await both.onSource(`update turn.t set v = 'source' where id = 1`);
    await both.onTarget(`update turn.t set v = 'target' where id = 2`);
    await again.caughtUp();
    await reverse.caughtUp();
    await both.expectSame(there, 't');
    const writers = `select xmin::text as xmin from turn.t where id = $1`;
    const before = [await both.onSource(writers, [1]), await both.onTarget(writers, [2])];
    await both.onSource(`insert into turn.t values (2000, 'marker')`);
    await again.caughtUp();
    await reverse.caughtUp();
    expect([await both.onSource(writers, [1]), await both.onTarget(writers, [2])]).toEqual(before);
    expect([...forward.faults, ...reverse.faults, ...again.faults]).toEqual([]);
  });

  it('maps rows in both directions: a renamed column, and one table that became two', async () => {
    await both.onSource(
      `create schema shop; create table shop.customer (id int primary key, name text not null, street text, notes text)`,
    );
    await both.onTarget(`create schema shop;
    create table shop.person (id int primary key, full_name text not null);
    create table shop.address (person_id int primary key, street text, notes text)`);
    const forward: Mapping = (_, { id, name, street, notes }): MappedRow[] => [
      { table: 'person', row: { id, full_name: name } },
      { table: 'address', row: { person_id: id, street, notes } },
    ];
    forward.truncated = () => ['person', 'address'];
    const backward: Mapping = (table, row): MappedRow[] =>
      table === 'person'
        ? [{ table: 'customer', row: { id: row.id, name: row.full_name } }]
        : [{ table: 'customer', row: { id: row.person_id, street: row.street, notes: row.notes } }];
    const merged = `select p.id, full_name as name, street, notes from shop.person p join shop.address a on a.person_id = p.id order by 1`;
    const same = async () =>
      expect(await both.onTarget(merged)).toEqual(await both.onSource('select * from shop.customer order by 1'));

    const large = `(select string_agg(md5(g::text), '') from generate_series(1, 200) g)`;
    await both.onSource(
      `insert into shop.customer select i, 'n' || i, 's' || i, ${large} from generate_series(1, 100) i`,
    );
    const there = both.stream('shop', { mapping: forward });
    const forwards = await both.start(there, { chunkRows: 30 });
    await same();
    await both.onSource(`
    update shop.customer set street = 'moved' where id < 20;
    update shop.customer set id = id + 1000 where id < 5;
    delete from shop.customer where id between 10 and 15;
    insert into shop.customer values (500, 'new', null, null)`);
    await forwards.caughtUp();
    await same();
    await both.onSource(
      `truncate shop.customer; insert into shop.customer values (1, 'a', 'b', 'c'), (2, 'd', 'e', ${large})`,
    );
    await forwards.caughtUp();
    await same();
    await forwards.stop();

    const back = both.reverse(there, { mapping: backward });
    const backwards = await both.start(back, { backfill: false });
    await both.onTarget(
      `begin; insert into shop.person values (7, 'x'); insert into shop.address values (7, 'y', 'z'); commit`,
    );
    await both.onTarget(
      `update shop.person set full_name = 'renamed' where id = 2; update shop.address set street = null where person_id = 2`,
    );
    await both.onTarget(
      `begin; delete from shop.person where id = 1; delete from shop.address where person_id = 1; commit`,
    );
    await backwards.caughtUp();
    await same();
    expect([...forwards.faults, ...backwards.faults]).toEqual([]);
  });

  it('stops at a column that the target lacks, says so, and goes on when it is there', async () => {
    await both.onBoth(`create schema wide; create table wide.t (id int primary key, v text)`);
    const stream = both.stream('wide');
    const running = await both.start(stream);
    await both.onSource(`alter table wide.t add column extra int default 3; insert into wide.t values (1, 'a', 4)`);
    const problem = await eventually(
      () => running.problems.find((each) => /Widen the target/.test(each.message)),
      patient,
    );
    expect(problem.message).toContain('no column extra');
    await eventually(async () => /Widen the target/.test((await streamState(stream)).reason ?? ''), patient);
    await both.onTarget(`alter table wide.t add column extra int default 3`);
    await running.caughtUp();
    await both.expectSame(stream, 't');

    // A new table: it is copied and followed like the others.
    await both.onTarget(`create table wide.late (id int primary key)`);
    await both.onSource(
      `create table wide.late (id int primary key); insert into wide.late select generate_series(1, 100)`,
    );
    await running.stop();
    const next = both.run(stream);
    await both.onSource(`insert into wide.late values (101)`);
    await next.caughtUp();
    await both.expectSame(stream, 't', 'late');
  });

  it('goes on by itself after its connections were cut', async () => {
    await both.onBoth(`create schema cut; create table cut.t (id int primary key, n int)`);
    await both.onSource(`insert into cut.t select i, 0 from generate_series(1, 5000) i`);
    const stream = both.stream('cut');
    const running = await both.start(stream);
    for (let i = 0; i < 6; i++) {
      const cut = `select pg_terminate_backend(pid) from pg_stat_activity where application_name like $1`;
      await both.onSource(`update cut.t set n = n + 1 where id % 7 = ${i}`);
      await running.caughtUp();
      await (i % 2 ? both.onSource(cut, [`banyan:${stream.name}%`]) : both.onTarget(cut, [`banyan:${stream.name}%`]));
    }
    await running.caughtUp();
    await both.expectSame(stream, 't');
    expect(running.problems.length).toBeGreaterThan(2);
  });

  it('lets a newer process take over; the older one cannot write any more', async () => {
    await both.onBoth(`create schema taken; create table taken.t (id int primary key, n int)`);
    const stream = both.stream('taken');
    let release!: () => void;
    const held = new Promise<void>((resolve) => (release = resolve));
    let reached = 0;
    // The old one hangs in the middle of a transaction, as a paused process does.
    const old = await both.start(stream, { onMessage: { hold: async () => void (reached++, await held) } });
    await both.onSource(
      `begin; insert into taken.t values (1, 1); select pg_logical_emit_message(true, 'hold', ''); commit`,
    );
    await eventually(() => reached > 0, patient);
    const fresh = both.run(stream);
    await fresh.caughtUp();
    await both.onSource(`update taken.t set n = 2 where id = 1`);
    await fresh.caughtUp();
    release();
    await expect(old.ended()).rejects.toMatchObject({ code: 'SUPERSEDED' });
    expect(await both.onTarget('select * from taken.t')).toEqual([{ id: 1, n: 2 }]);
    // Of a shared log the old one's last message may have come in between, and been told to the slot.
    const last = (problem: Error) =>
      /^wrong last sequence|^Another process has read the slot meanwhile/.test(problem.message);
    expect(fresh.faults.filter((each) => !last(each))).toEqual([]);
  });

  it('finds a slot that was lost, names it, and is mended by a new backfill only', async () => {
    await both.onBoth(`create schema lost; create table lost.t (id int primary key)`);
    await both.onSource(`insert into lost.t select generate_series(1, 100)`);
    const stream = both.stream('lost');
    const lost = async () => {
      await expect(both.run(stream).ended()).rejects.toMatchObject({
        code: 'STREAM_LOST',
        next: expect.stringContaining('backfill'),
      });
      expect(await streamState(stream)).toMatchObject({ state: 'lost' });
    };
    await (await both.start(stream)).stop();
    await both.idle(stream);
    expect(await streamState(stream)).toMatchObject({
      state: 'prepared',
      backfill: { done: true, percent: 100, rows: 100 },
    });

    await both.onSource(`select pg_drop_replication_slot('${stream.name}'); delete from lost.t where id = 1`);
    await lost();
    expect((await streamState(stream)).reason).toContain('slot is gone');
    // Made again behind our back: it begins after the change that nobody has seen.
    await both.onSource(`select pg_create_logical_replication_slot('${stream.name}', 'pgoutput')`);
    await lost();
    expect(await both.onTarget('select count(*)::int as n from lost.t')).toEqual([{ n: 100 }]);

    await (await both.start(stream)).stop();
    await both.expectSame(stream, 't');
    await both.idle(stream);
    await both.onSource(`select pg_drop_replication_slot('${stream.name}')`);
    await expect(
      prepareStream(stream, { backfill: true, check: () => Promise.reject(new Error('no')) }),
    ).rejects.toThrow('no');
    expect(await both.onTarget('select count(*)::int as n from lost.t')).toEqual([{ n: 99 }]);
    await lost();
  });

  it('is absent until it was prepared, and after it was dropped', async () => {
    await both.onBoth(`create schema absent; create table absent.t (id int primary key)`);
    const stream = both.stream('absent');
    expect(await streamState(stream)).toMatchObject({ state: 'absent' });
    await expect(runStream(stream)).rejects.toMatchObject({ code: 'STREAM_ABSENT' });
    const running = await both.start(stream);
    expect(await streamState(stream)).toMatchObject({ state: 'streaming', active: true });
    await expect(prepareStream(stream, { backfill: true })).rejects.toMatchObject({ code: 'STREAM_BUSY' });
    await running.stop();
    await both.idle(stream);
    for (let i = 0; i < 2; i++) await prepareStream(stream, { backfill: i === 0 });
    expect(await streamState(stream)).toMatchObject({ state: 'prepared', backfill: null });
  });
});
