import { eventually } from '@banyan/testing';
import { expect, it } from 'vitest';
import { throughEachLog } from './two-databases.spec-support.js';

throughEachLog((both) => {
  const LARGE = `(select string_agg(md5(random()::text), '') from generate_series(1, 400))`;

  it('carries every kind of change and every type of value exactly', async () => {
    await both.onBoth(`
    create schema kinds;
    create type kinds.mood as enum ('fine', 'not "so" fine');
    create domain kinds.percent as int check (value between 0 and 100);
    create table kinds.t (
      a int, b text, flag boolean, small char(5), money numeric(20, 6), at timestamptz, day date, span interval,
      tags text[], grid int[][], doc jsonb, plain json, bytes bytea, ip inet, m kinds.mood, p kinds.percent, f float8, r int4range,
      large text, twice int generated always as (a * 2) stored, n int generated always as identity,
      primary key (a, b, small, flag));
    create table kinds.only_key (id uuid primary key);
    create table kinds.no_rows (id int primary key, v text);
    alter table kinds.no_rows replica identity full;
  `);
    const insert = (from: number, to: number) =>
      both.onSource(
        `insert into kinds.t (a, b, flag, small, money, at, day, span, tags, grid, doc, plain, bytes, ip, m, p, f, r, large)
      select i, 'a,"\\\\{}' || i, i % 2 = 0, 'x', i / 3.0, '2024-02-29 12:00:00.123456+02'::timestamptz + i * interval '1 us', '2024-02-29', '1 mon 2 days 03:00:00.5',
        array['a b', null, '"', '{}'], '{{1,2},{3,4}}', '{"a": [1, null, "\\u00e4"]}', '{"b" :  1}', '\\x00ff', '10.0.0.0/8',
        'not "so" fine', 50, 0.1 + i, '[1,5)', case when i % 3 = 0 then null else ${LARGE} end from generate_series($1::int, $2::int) i`,
        [from, to],
      );
    await insert(1, 60);
    const stream = both.stream('kinds');
    const running = await both.start(stream, { chunkRows: 7 });
    await both.expectSame(stream, 't', 'only_key', 'no_rows');

    await insert(61, 90);
    await both.onSource(`
    insert into kinds.only_key select gen_random_uuid() from generate_series(1, 10);
    insert into kinds.no_rows select i, 'v' || i from generate_series(1, 50) i;
    update kinds.t set money = money + 1 where a % 2 = 0; -- large values untouched
    update kinds.t set large = 'short' where a % 5 = 0;
    update kinds.t set b = b || '!', tags = null where a % 7 = 0; -- the key changes, large values do not
    delete from kinds.t where a % 11 = 0;
    update kinds.no_rows set id = id + 1000 where id < 10;
    update kinds.no_rows set v = null where id between 20 and 30;
    delete from kinds.no_rows where id = 40;
  `);
    await both.onSource(`with gone as (delete from kinds.t where a = 1 returning *) select 1`);
    await both.onSource(
      `begin; delete from kinds.t where a = 2; insert into kinds.t (a, b, flag, small) values (2, 'again', true, 'y'); commit`,
    );
    await running.caughtUp();
    await both.expectSame(stream, 't', 'only_key', 'no_rows');

    await both.onSource(
      `begin; insert into kinds.no_rows values (1, 'before'); truncate kinds.no_rows, kinds.only_key; insert into kinds.no_rows values (2, 'after'); commit`,
    );
    await running.caughtUp();
    await both.expectSame(stream, 't', 'only_key', 'no_rows');
    expect(running.faults).toEqual([]);
  });

  it('keeps the order of changes where other columns are unique', async () => {
    await both.onBoth(
      `create schema ordered; create table ordered.seat (id int primary key, place text unique, note text)`,
    );
    await both.onSource(`insert into ordered.seat select i, 'p' || i from generate_series(1, 20) i`);
    const stream = both.stream('ordered');
    const running = await both.start(stream, { chunkRows: 3 });
    await both.onSource(`
    begin;
    update ordered.seat set place = 'free' where id = 1;
    update ordered.seat set place = 'p1' where id = 2;
    update ordered.seat set place = 'p2' where id = 1;
    delete from ordered.seat where id = 3;
    insert into ordered.seat values (30, 'p3');
    update ordered.seat set id = 31 where id = 30;
    delete from ordered.seat where place = 'p4';
    insert into ordered.seat values (4, 'p4', 'again');
    commit`);
    await running.caughtUp();
    await both.expectSame(stream, 'seat');
    expect(running.faults).toEqual([]);
  });

  it('moves the mark on by itself in a quiet time, and at once after a write', async () => {
    await both.onBoth(`create schema quiet; create table quiet.t (id int primary key)`);
    const stream = both.stream('quiet');
    await both.start(stream);
    const waits: number[] = [];
    for (let i = 0; i < 10; i++) {
      await both.onSource(`set synchronous_commit = on; insert into quiet.t values (${i})`);
      const [{ lsn }] = (await both.onSource<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn')) as [
        { lsn: string },
      ];
      const from = performance.now();
      await eventually(
        async () =>
          (
            await both.onTarget(`select from banyan_replication.mark where stream = $1 and lsn >= $2::pg_lsn`, [
              stream.name,
              lsn,
            ])
          ).length === 1,
        { intervalMs: 2, timeoutMs: 20_000 },
      );
      waits.push(performance.now() - from);
    }
    // 0.3 to 12 ms on two busy cores, when nothing holds it up; each that waits for a heartbeat would take seconds.
    expect(waits.sort((a, b) => a - b)[waits.length / 2]).toBeLessThan(500);
  });
});
