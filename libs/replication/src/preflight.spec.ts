import { expect, it } from 'vitest';
import { type Mapping, type Stream, preflight, streamState } from './index.js';
import { TwoDatabases } from './two-databases.spec-support.js';

const both = new TwoDatabases();
/** Never prepared here, so there is nothing to take away afterwards. */
const streamOf = (schema: string, more: Partial<Stream> = {}): Stream => ({
  name: `never_${both.id}`,
  source: both.source,
  target: both.target,
  schema,
  ...more,
});
const told = async (stream: Stream) => (await preflight(stream)).map(({ code, detail }) => `${code} ${detail}`);

it('names everything that stands in the way, and touches nothing', async () => {
  await both.onSource(`create schema bad;
    create table bad.no_key (id int);
    create table bad.late_key (id int primary key deferrable);
    create table bad.mute (id int primary key); alter table bad.mute replica identity nothing;
    create unlogged table bad.quick (id int primary key);
    create table bad.nowhere (id int primary key);
    create table bad.narrow (id int primary key, a int, b int);
    create table bad.strict (id int primary key);
    create table bad.other_key (id int primary key, sku text not null);
    create table bad.fine (id int, day date, primary key (id, day)) partition by range (day);
    create table bad.fine_2024 partition of bad.fine for values from ('2024-01-01') to ('2025-01-01')`);
  await both.onTarget(`create schema bad;
    create table bad.no_key (id int primary key); create table bad.late_key (id int primary key);
    create table bad.mute (id int primary key); create table bad.quick (id int primary key);
    create table bad.narrow (id int primary key, a int);
    create table bad.strict (id int primary key, must text not null);
    create table bad.other_key (id int, sku text primary key);
    create table bad.fine (id int, day date, primary key (id, day))`);
  const stream = streamOf('bad');
  expect((await told(stream)).sort()).toEqual(
    [
      'NO_PRIMARY_KEY The primary key of bad.late_key is deferrable.',
      'REPLICA_IDENTITY bad.mute does not tell the log its primary key.',
      'NO_PRIMARY_KEY bad.no_key has no primary key.',
      'UNLOGGED bad.quick is unlogged: its changes are in no log.',
      'TARGET_KEY bad.no_key has the primary key (id) in the target and () in the source.',
      'TARGET_COLUMN_MISSING bad.narrow of the target has no column b.',
      'TARGET_TABLE_MISSING The target has no table bad.nowhere.',
      'TARGET_KEY bad.other_key has the primary key (sku) in the target and (id) in the source.',
      'TARGET_COLUMN_REQUIRED bad.strict of the target needs must, which the source does not have.',
    ].sort(),
  );
  expect(await told({ ...stream, tables: ['fine'] })).toEqual([]);
  expect(await told({ ...stream, tables: ['missing'] })).toEqual([
    'TABLE_UNKNOWN The source has no table bad.missing.',
  ]);
  expect(await told({ ...stream, name: 'No-Name' })).toContainEqual(expect.stringMatching(/^NAME_INVALID/));
  expect(await told({ ...stream, target: stream.source })).toContainEqual(expect.stringMatching(/^SAME_PLACE/));
  expect(await told({ ...stream, schema: 'void' })).toEqual([
    'NO_TABLES There is nothing to copy in the schema void of the source.',
  ]);
  const away = 'postgres://nobody@127.0.0.1:1/none';
  expect(await told({ ...stream, source: away, target: away })).toEqual([
    expect.stringMatching(/^SOURCE_UNREACHABLE The source cannot be reached: /),
    expect.stringMatching(/^TARGET_UNREACHABLE/),
  ]);
  expect(await streamState(stream)).toMatchObject({ state: 'absent', retainedBytes: 0 });
  expect(await both.onTarget(`select from pg_namespace where nspname = 'banyan_replication'`)).toEqual([]);
});

it('refuses roles that may not do it', async () => {
  await both.onBoth(`create schema rights; create table rights.t (id int primary key)`);
  const role = `banyan_spec_${both.id}`;
  await both.onSource(`create role ${role} login password 'x'; grant usage on schema rights to ${role}`);
  await both.onTarget(`grant usage on schema rights to ${role}`);
  const as = (url: string) => Object.assign(new URL(url), { username: role, password: 'x' }).href;
  try {
    const problems = await told(streamOf('rights', { source: as(both.source), target: as(both.target) }));
    expect(problems.map((problem) => problem.split(' ')[0])).toEqual(Array.from(problems, () => 'PRIVILEGE'));
    expect(problems.join()).toMatch(/may not replicate.*does not own|does not own/);
  } finally {
    await both.onTarget(`drop owned by ${role}`);
    await both.onSource(`drop owned by ${role}; drop role ${role}`);
  }
});

it('tries a mapping on a row before anything is copied', async () => {
  await both.onSource(
    `create schema maps; create table maps.t (id int primary key, v text); insert into maps.t values (1, 'a')`,
  );
  await both.onTarget(`create schema maps; create table maps.u (uid int primary key, v text)`);
  const tell = (mapping: Mapping) => told(streamOf('maps', { mapping }));
  const good: Mapping = (_, { id, v }) => [{ table: 'u', row: { uid: id, v } }];
  expect(await tell(good)).toEqual([]);
  expect(
    await tell(() => {
      throw new Error('oh');
    }),
  ).toContainEqual('MAPPING The mapping fails on a row of t (put): oh.');
  expect(await tell(() => [{ table: 'x', row: {} }])).toContainEqual(
    expect.stringContaining('maps.x, which the target does not have'),
  );
  expect(await tell((_, { id }) => [{ table: 'u', row: { uid: id, w: '1' } }])).toContainEqual(
    expect.stringContaining('sets w of maps.u'),
  );
  expect(await tell((_, { v }) => [{ table: 'u', row: { v } }])).toContainEqual(
    expect.stringContaining('gives no uid'),
  );
  expect(await tell((() => 'nonsense') as never)).toContainEqual(expect.stringContaining('no list of {table, row}'));
});
