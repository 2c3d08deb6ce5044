import { writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Stream, prepareStream, streamState } from '@banyan/replication';
import { streamName } from '@banyan/extraction/protocol';
import { type ServerProcess, eventually, startNats } from '@banyan/testing';
import { afterAll, beforeAll, beforeEach, expect, inject, it } from 'vitest';
import { BridgeProcess, throughNats } from './bridge-process.js';
import { Pair } from './pair.js';

/*
 * The bridge as a real process, killed with SIGKILL again and again while it copies and while writes go on. Shortened by
 * default; `BANYAN_TEST_SIZE=full npx vitest run test/replication` is the whole of it (200,000 rows, 20 kills).
 */
const full = process.env.BANYAN_TEST_SIZE === 'full';
const ROWS = full ? 200_000 : 20_000;
/** At random instants, and before these at its own step behind a chunk: that is in the middle of the copy for sure. */
const KILLS = full ? 20 : 5;
const DEATHS = Math.ceil(KILLS / 2);
const WRITES_PER_SECOND = 500;
const TABLES = ['item', 'line', 'scratch'];

let pair: Pair;
let nats: ServerProcess;
let failPoints: string;
beforeAll(async () => {
  failPoints = await mkdtemp(join(tmpdir(), 'banyan-killed-'));
  nats = await startNats();
});
afterAll(async () => {
  await nats?.stop();
  await rm(failPoints, { recursive: true });
});
beforeEach(async () => {
  pair = await Pair.on(inject('adminUrl'));
  return () => pair.drop();
});

it.each(['slot', 'JetStream'])(
  `copies ${ROWS} rows through %s while ${WRITES_PER_SECOND} writes/s go on and the bridge is killed ${DEATHS + KILLS} times`,
  async (log) => {
    await pair.onBoth(`
      create schema soak;
      create table soak.banyan_owner (side text, open boolean, epoch bigint);
      create table soak.item (id bigint primary key, name text not null, n int not null, large text, at timestamptz(3) not null);
      create table soak.line (item bigint, no int, note text, primary key (item, no));
      create table soak.scratch (id bigint primary key, note text, large text);
    `);
    await pair.on('monolith', `insert into soak.banyan_owner values ('monolith', true, 1)`);
    await pair.on('service', `insert into soak.banyan_owner values ('service', false, 0)`);
    // Random text of 6 kB does not compress into the row: it is stored apart, and left out of the log when untouched.
    const large = `(select string_agg(md5(i::text || g), '') from generate_series(1, 200) g)`;
    await pair.on(
      'monolith',
      `insert into soak.item select i, 'item ' || i, 0, case when i % 20 = 0 then ${large} end, now()
         from generate_series(1, ${ROWS * 0.7}) i`,
    );
    await pair.on(
      'monolith',
      `insert into soak.line select i / 3, i % 3, 'line ' || i from generate_series(1, ${ROWS * 0.3}) i`,
    );

    const stream: Stream = {
      name: streamName('soak', 'monolith', pair.urls.monolith),
      source: pair.urls.monolith,
      target: pair.urls.service,
      schema: 'soak',
    };
    await prepareStream(stream, { backfill: true });
    // On connections of its own: the writer's pool may be busy.
    const state = () => streamState(stream);
    const writer = new Writer(pair, ROWS);
    const bridge = new BridgeProcess(pair, 'soak', {
      BANYAN_FAIL_POINTS: failPoints,
      ...(log === 'slot' ? {} : throughNats(nats)),
    });
    try {
      writer.start();
      let copied = 0;
      let midway = 0;
      for (; midway < DEATHS; midway++) {
        writeFileSync(join(failPoints, 'bridge-after-chunk'), '');
        await bridge.runToItsEnd();
        const { backfill } = await state();
        expect(backfill!.done).toBe(false);
        expect(backfill!.rows).toBeGreaterThan(copied);
        copied = backfill!.rows;
      }
      for (let kill = 1; kill <= KILLS; kill++) {
        await bridge.start();
        // In the middle of the copy, if this process is quick enough: as soon as it has moved on by a random part.
        const enough = copied + (Math.random() * (ROWS * 0.8 - copied)) / (KILLS - kill + 2);
        await eventually(async () => (await state()).backfill!.rows > enough, { timeoutMs: 60_000, intervalMs: 5 });
        await sleep(Math.random() * 20);
        if (kill === Math.ceil(KILLS / 2)) {
          // Target first; the writer uses the column as soon as it is there.
          await pair.on('service', 'alter table soak.item add column extra text');
          await pair.on('monolith', 'alter table soak.item add column extra text');
          writer.widened = true;
        }
        if (kill === 2 && log !== 'slot') await nats.restart();
        await bridge.stop();
        const { backfill } = await state();
        expect(backfill!.rows).toBeGreaterThanOrEqual(copied);
        if (!backfill!.done) midway += 1;
        copied = backfill!.rows;
      }
      await bridge.start();
      await eventually(async () => (await state()).backfill?.done, { timeoutMs: 120_000, intervalMs: 200 });
      await sleep(500); // some more writes after the copy
      const kinds = ['delete', 'insert', 'key', 'large', 'line', 'rebirth', 'truncate', 'update'];
      // Some are seldom.
      await eventually(() => expect(writer.kinds()).toEqual(kinds), { timeoutMs: 60_000 });
      await writer.stop();
      await pair.on('monolith', `select pg_logical_emit_message(true, 'spec', '', true)`);
      const sums = await pair.sums('monolith', 'soak', TABLES);
      await eventually(async () => expect(await pair.sums('service', 'soak', TABLES)).toEqual(sums), {
        timeoutMs: 60_000,
        intervalMs: 500,
      });
      const [least] = await pair.on<{ n: number }>('service', 'select count(*)::int as n from soak.item where n > 0');
      expect(least!.n).toBeGreaterThan(50);
      console.log(
        `${log}: ${writer.written} writes in ${writer.seconds.toFixed(1)} s (${Math.round(writer.written / writer.seconds)}/s), ` +
          `${DEATHS + KILLS} kills, ${midway} of them in the middle of the copy; ${sums.map((sum) => sum.split(' ', 2).join(' ')).join(', ')} rows at the end`,
      );
    } finally {
      await writer.stop();
      await bridge.stop();
    }
  },
  full ? 900_000 : 400_000,
);

/** Writes at a steady rate whatever the answers take, each a transaction of its own. */
class Writer {
  written = 0;
  seconds = 0;
  widened = false;
  #timer: NodeJS.Timeout | undefined;
  #startedAt = 0;
  #sent = 0;
  #next: number;
  #failure: Error | undefined;
  readonly #rows: number;
  readonly #kinds = new Set<string>();
  readonly #pending = new Set<Promise<unknown>>();

  constructor(
    private readonly pair: Pair,
    rows: number,
  ) {
    this.#rows = rows * 0.7;
    this.#next = rows * 10;
  }

  kinds(): string[] {
    return [...this.#kinds].sort();
  }

  start(): void {
    this.#startedAt = performance.now();
    this.#timer = setInterval(() => {
      const due = ((performance.now() - this.#startedAt) / 1000) * WRITES_PER_SECOND;
      while (this.#sent < due) {
        this.#sent += 1;
        const write = this.#write().catch((error: Error & { code?: string }) => {
          // A key may be moved to where a row was put meanwhile.
          if (error.code !== '23505') this.#failure ??= error;
        });
        this.#pending.add(write);
        void write.then(() => this.#pending.delete(write));
      }
    }, 10);
  }

  async stop(): Promise<void> {
    if (!this.#timer) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    await Promise.all(this.#pending);
    if (this.#failure) throw this.#failure;
    this.seconds = (performance.now() - this.#startedAt) / 1000;
  }

  async #write(): Promise<void> {
    const { kind, text } = this.#statement();
    await this.pair.on('monolith', text);
    this.#kinds.add(kind);
    this.written += 1;
  }

  #statement(): { kind: string; text: string } {
    const id = 1 + Math.floor(Math.random() * this.#rows);
    const fresh = ++this.#next;
    const dice = Math.random();
    const extra = this.widened ? `, extra = 'x${fresh}'` : '';
    const large = `(select string_agg(md5(g::text || '${fresh}'), '') from generate_series(1, 200) g)`;
    if (dice < 0.4) return { kind: 'update', text: `update soak.item set n = n + 1${extra} where id = ${id}` };
    // Rows with a large value, which the update leaves alone.
    if (dice < 0.6)
      return { kind: 'update', text: `update soak.item set n = n + 1 where id = ${id - (id % 20) || 20}` };
    if (dice < 0.65) return { kind: 'insert', text: `insert into soak.item values (${fresh}, 'new', 1, null, now())` };
    if (dice < 0.7) return { kind: 'large', text: `update soak.item set large = ${large} where id = ${id}` };
    // The row goes to another place in the order of keys: into the part that is copied already, or out of it.
    if (dice < 0.85)
      return { kind: 'key', text: `update soak.item set id = -id where abs(id) = ${id - (id % 20) || 20}` };
    if (dice < 0.9) return { kind: 'delete', text: `delete from soak.item where id = ${id}` };
    if (dice < 0.93)
      return {
        kind: 'rebirth',
        text: `begin; delete from soak.item where id = ${id};
               insert into soak.item (id, name, n, at) values (${id}, 'again', 1, now()) on conflict (id) do update set name = 'again'; commit`,
      };
    if (dice < 0.96)
      return {
        kind: 'line',
        text: `update soak.line set no = no + 10, note = 'moved' where item = ${id} and no < 100`,
      };
    if (dice < 0.998) return { kind: 'insert', text: `insert into soak.scratch values (${fresh}, 'note', ${large})` };
    return { kind: 'truncate', text: `truncate soak.scratch` };
  }
}
