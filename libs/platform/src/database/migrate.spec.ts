import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { ensureContextDatabases, ensureOwnedSchema, migrate, roleUrl } from './migrate.js';

let server: pg.Client;
let dir: string;
let databases: string[];

const owner = `create table banyan_owner (one boolean primary key default true, side text not null, open boolean not null,
  epoch bigint not null, min_epoch bigint not null, changed_at timestamptz not null);`;

async function database(): Promise<string> {
  const name = `banyan_test_${Date.now().toString(36)}_${randomBytes(4).toString('hex')}`;
  await server.query(`create database ${name}`);
  databases.push(name);
  const url = new URL(inject('adminUrl'));
  url.pathname = name;
  return url.href;
}

async function migration(folder: string, name: string, sql: string): Promise<void> {
  await mkdir(join(dir, folder, name), { recursive: true });
  await writeFile(join(dir, folder, name, 'migration.sql'), sql);
}

async function ask(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client
    .query(text)
    .then(
      ({ rows }) => rows,
      (error) => [error.code],
    )
    .finally(() => client.end());
}

const up = (adminUrl: string, side: 'monolith' | 'service' = 'monolith') =>
  ensureContextDatabases({ adminUrl, contexts: ['probe_a', 'probe_b'], side, migrationsDir: dir });
const applied = (url: string) =>
  ask(url, 'select migration_name from probe_a._prisma_migrations order by started_at, migration_name');

beforeEach(async () => {
  databases = [];
  dir = await mkdtemp(join(tmpdir(), 'banyan-migrations-'));
  server = new pg.Client({ connectionString: inject('adminUrl') });
  await server.connect();
  await migration('_messaging', '1_messaging', owner);
  await migration('probe_a', '2_thing', 'create table thing (id int primary key); create table number (id serial)');
});

afterEach(async () => {
  for (const name of databases) await server.query(`drop database ${name} with (force)`);
  for (const role of ['banyan_probe_a', 'banyan_probe_b', 'banyan_probe_own'])
    await server.query(`drop role if exists ${role}`);
  await server.end();
  await rm(dir, { recursive: true });
});

it('makes schema, role, tables and owner row, once, in the order of the names', async () => {
  const url = await database();
  const urls = await up(url);
  await migration('probe_a', '3_more', 'alter table thing add column note text');
  await up(url);
  await up(url);
  expect(await applied(url)).toEqual(
    ['1_messaging', '2_thing', '3_more'].map((migration_name) => ({ migration_name })),
  );
  expect(await ask(urls.probe_a ?? '', 'select side, open, epoch, min_epoch from banyan_owner')).toEqual([
    { side: 'monolith', open: true, epoch: '1', min_epoch: '0' },
  ]);
  expect(
    await ask(
      urls.probe_a ?? '',
      `insert into thing values (1, 'x') returning id, (select nextval('number_id_seq')) as n`,
    ),
  ).toEqual([{ id: 1, n: '1' }]);
  expect(await ask(urls.probe_a ?? '', 'create table mine ()')).toEqual(['42501']);
  expect(await ask(urls.probe_a ?? '', 'select from probe_b.banyan_owner')).toEqual(['42501']);
});

it('leaves a service closed at epoch 0', async () => {
  const url = await database();
  await up(url, 'service');
  expect(await ask(url, 'select side, open, epoch from probe_a.banyan_owner')).toEqual([
    { side: 'service', open: false, epoch: '0' },
  ]);
});

it('lets instances that start together wait for one another, in several databases of one cluster', async () => {
  const urls = [await database(), await database(), await database()];
  await Promise.all(urls.flatMap((url) => Array.from({ length: 5 }, () => up(url))));
  for (const url of urls) expect(await applied(url)).toHaveLength(2);
});

it('asks one question and takes no lock when nothing is to do', async () => {
  const url = await database();
  await up(url);
  const holder = new pg.Client({ connectionString: url });
  await holder.connect();
  await holder.query(`select pg_advisory_lock(hashtextextended('banyan.migrate', 0))`);
  await up(url); // would hang
  await holder.end();
});

it('refuses a migration that was edited after it had been applied', async () => {
  const url = await database();
  await up(url);
  await migration('probe_a', '2_thing', 'create table thing (id bigint primary key)');
  await expect(up(url)).rejects.toThrow('Migration 2_thing of probe_a was edited after it had been applied');
  await migration('probe_a', '2_thing', 'create table thing (id int primary key); create table number (id serial)');
  await up(url);
});

it('keeps nothing of a migration that fails, and says where it failed', async () => {
  const url = await database();
  await migration('probe_a', '3_bad', 'create table half ();\ncreate table thing ();');
  await expect(up(url)).rejects.toThrow('Migration 3_bad of probe_a failed: relation "thing" already exists');
  await migration('probe_a', '3_bad', 'create table half ();\nselect nonsense;');
  await expect(up(url)).rejects.toThrow('column "nonsense" does not exist (line 2)');
  expect(await ask(url, `select to_regclass('probe_a.half') as half`)).toEqual([{ half: null }]);
  await migration('probe_a', '3_bad', 'create table half ()');
  await up(url);
});

it('makes the role again when it is gone or its password is another', async () => {
  const url = await database();
  await up(url);
  const other = await database();
  await up(other);
  await server.query(`alter role banyan_probe_a password 'other'`);
  expect(await ask(roleUrl(url, 'probe_a'), 'select 1 as one').catch((error) => error.code)).toBe('28P01');
  await migration('probe_a', '3_more', 'create table more ()');
  await up(url);
  expect(await ask(roleUrl(other, 'probe_a'), 'select 1 as one')).toEqual([{ one: 1 }]);
});

it('uses an override URL as it is', async () => {
  const [url, elsewhere] = [await database(), await database()];
  const urls = await ensureContextDatabases({
    adminUrl: url,
    contexts: ['probe_a', 'probe_b'],
    side: 'monolith',
    migrationsDir: dir,
    overrides: { probe_a: elsewhere },
  });
  expect(urls.probe_a).toBe(elsewhere);
  expect(await applied(elsewhere)).toHaveLength(2);
  expect(await applied(url)).toEqual(['42P01']);
  expect(await server.query(`select from pg_roles where rolname = 'banyan_probe_a'`)).toMatchObject({ rowCount: 0 });
});

it('says what to do when the URL has no password', async () => {
  const adminUrl = 'postgres://postgres@127.0.0.1/x';
  await expect(migrate({ adminUrl, context: 'probe_a', side: 'monolith', folders: [] })).rejects.toThrow(
    'DATABASE_URL has no password',
  );
});

it('gives a library a schema of its own, and nothing else', async () => {
  const url = await database();
  await up(url);
  const own = await Promise.all([ensureOwnedSchema(url, 'probe_own'), ensureOwnedSchema(url, 'probe_own')]);
  expect(own[0]).toBe(own[1]);
  await ask(own[0], 'create schema if not exists probe_own; create table made (id int)');
  expect(await ask(own[0], 'select count(*)::int as n from probe_own.made')).toEqual([{ n: 0 }]);
  expect(await ask(own[0], 'select from probe_a.thing')).toEqual(['42501']);
  expect(await ensureOwnedSchema(url, 'probe_own')).toBe(own[0]);
});
