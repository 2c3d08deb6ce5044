import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { eventually, projectRoot } from '@banyan/testing';
import { afterAll, beforeAll, expect, inject, it, onTestFinished } from 'vitest';
import { Pair } from './pair.js';

/* `banyan replicate` between two databases that know nothing of Banyan. */
let pair: Pair;
const started = new Set<ChildProcess>();
const patient = { timeoutMs: 30_000 };
beforeAll(async () => {
  pair = await Pair.on(inject('adminUrl'));
});
afterAll(async () => {
  for (const child of started) child.kill('SIGKILL');
  await pair?.drop();
});

interface Line {
  event?: string;
  ok?: boolean;
  rows?: number;
  backfill?: { done: boolean; rows: number };
  error?: { code: string; detail: string; next: string };
}

function replicate(...more: string[]) {
  const args = [
    'replicate',
    '--source',
    pair.urls.monolith,
    '--target',
    pair.urls.service,
    '--schema',
    'plain',
    '--json',
  ];
  const child = spawn(process.execPath, [join(projectRoot, 'apps/cli/bin/banyan.mjs'), ...args, ...more], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env.PATH },
  });
  started.add(child);
  const lines: Line[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(JSON.parse(line) as Line));
  const ended = once(child, 'close').then(([code]) => ({ code: code as number, last: lines.at(-1)! }));
  const said = (event: string) => eventually(() => lines.find((line) => line.event === event), { timeoutMs: 60_000 });
  return { child, lines, said, ended };
}

it('refuses, copies, follows, stops, goes on, and leaves nothing behind', async () => {
  await pair.on(
    'monolith',
    `create schema plain; create table plain.thing (id int primary key, v text);
    insert into plain.thing select i, 'v' || i from generate_series(1, 20000) i; create table plain.loose (id int)`,
  );
  const refused = await replicate().ended;
  expect(refused).toMatchObject({ code: 7, last: { ok: false, error: { code: 'REFUSED' } } });
  expect(refused.last.error!.detail).toContain('plain.loose has no primary key');
  expect(refused.last.error!.detail).toContain('The target has no table plain.thing');

  await pair.on(
    'service',
    `create schema plain; create table plain.thing (id int primary key, v text); insert into plain.thing values (-1, 'mine')`,
  );
  const tables = ['--tables', 'thing'];
  expect((await replicate(...tables).ended).last.error!.next).toContain('--truncate');
  expect(await pair.on('service', 'select id from plain.thing')).toEqual([{ id: -1 }]);

  const first = replicate(...tables, '--truncate');
  await first.said('caught-up');
  await pair.on(
    'monolith',
    `update plain.thing set v = 'changed' where id <= 10; delete from plain.thing where id = 11`,
  );
  const same = async () =>
    expect(await pair.sums('service', 'plain', ['thing'])).toEqual(await pair.sums('monolith', 'plain', ['thing']));
  await eventually(same, patient);
  first.child.kill('SIGINT');
  expect(await first.ended).toMatchObject({ code: 0, last: { ok: true, backfill: { done: true, rows: 20_000 } } });

  await pair.on('monolith', `insert into plain.thing values (30000, 'while away')`);
  const second = replicate(...tables);
  await second.said('caught-up');
  await eventually(same, patient);
  expect(second.lines.some(({ event }) => event === 'copying')).toBe(false);
  second.child.kill('SIGTERM');
  await second.ended;

  // It lets go of the slot a moment after its end.
  const held = 'select from pg_replication_slots where database = current_database() and active';
  await eventually(async () => (await pair.on('monolith', held)).length === 0, patient);
  expect((await replicate('--drop').ended).last).toMatchObject({ ok: true, dropped: true });
  expect(await pair.on('monolith', 'select from pg_replication_slots where database = current_database()')).toEqual([]);
  expect(await pair.on('monolith', 'select from pg_publication')).toEqual([]);
  expect(await pair.on('service', 'select from banyan_replication.mark')).toEqual([]);
}, 240_000);

it('takes a mapping from a file, and says what is wrong with one', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'banyan-mapping-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const file = (name: string, text: string) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  await pair.on('service', `create table plain.renamed (id int primary key, value text)`);
  const good = file(
    'good.mjs',
    `export default (table, { id, v }) => [{ table: 'renamed', row: { id, value: v } }];
    export const truncated = () => ['renamed'];`,
  );
  const bad = file('bad.mjs', `export default () => [{ table: 'nowhere', row: {} }];`);
  const none = file('none.mjs', `export const mapping = 1;`);
  for (const each of [bad, none, join(folder, 'missing.mjs')])
    expect(await replicate('--tables', 'thing', '--mapping', each).ended).toMatchObject({ code: 7 });
  const run = replicate('--tables', 'thing', '--name', 'mapped', '--mapping', good);
  await run.said('caught-up');
  run.child.kill('SIGINT');
  expect(await run.ended).toMatchObject({ code: 0 });
  expect(await pair.on('service', 'select value from plain.renamed where id = 30000')).toEqual([
    { value: 'while away' },
  ]);
}, 180_000);
