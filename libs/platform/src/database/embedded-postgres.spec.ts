import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { eventually, freePort } from '@banyan/testing';
import pg from 'pg';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { EmbeddedPostgres } from './embedded-postgres.js';
import { birthOf } from './processes.js';

// Clusters are made, and servers start, stop and recover.
vi.setConfig({ testTimeout: 180_000 });

let stateDir: string;
/** Not one of the system's own: nobody else may have it while the server is down. */
let preferred: number;
const start = (options = {}) => EmbeddedPostgres.start({ stateDir, port: preferred, ...options });
const state = async (dir = stateDir) => JSON.parse(await readFile(join(dir, 'postgres.json'), 'utf8'));

async function ask(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client
    .query(text)
    .then(({ rows }) => rows)
    .finally(() => client.end());
}

/** What a supervisor that was killed leaves behind: its server, and a state file that names it. */
async function loseSupervisor(): Promise<void> {
  const file = join(stateDir, 'postgres.json');
  await writeFile(file, JSON.stringify({ ...(await state()), holders: [{ pid: process.pid, born: 'long ago' }] }));
}

/** One that has ended is gone, whether or not somebody has taken note of it. */
const alive = async (pid: number) => (await birthOf(pid)) !== undefined;

beforeAll(async () => {
  preferred = await freePort();
  stateDir = await mkdtemp(join(tmpdir(), 'banyan-postgres-'));
  await chmod(stateDir, 0o755); // for the server's account, when root runs the specs
});
afterAll(() => rm(stateDir, { recursive: true }));

it('starts, keeps its data and its password over a restart, and stops', async () => {
  const first = await start();
  await ask(first.url, 'create table kept as select 1 as one');
  expect(await ask(first.url, 'show wal_level')).toEqual([{ wal_level: 'logical' }]);
  const how = 'select inet_client_addr() is null as by_socket';
  expect(await ask(first.url, how)).toEqual([{ by_socket: false }]);
  expect(await ask(first.localUrl, how)).toEqual([{ by_socket: first.localUrl !== first.url }]);
  await first.stop();
  expect(await alive(first.pid)).toBe(false);
  expect((await stat(join(stateDir, 'postgres.json'))).mode & 0o777).toBe(0o600);
  const second = await start();
  expect(second.url).toBe(first.url);
  expect(await ask(second.url, 'select * from kept')).toEqual([{ one: 1 }]);
  await second.stop();
});

it('starts after a kill in the middle of the first start', async () => {
  const { password, port, dataDir } = await state();
  await writeFile(join(stateDir, 'postgres.json'), JSON.stringify({ password, port, dataDir, holders: [] }));
  const next = await start();
  expect(await ask(next.url, 'select * from kept')).toEqual([{ one: 1 }]);
  await next.stop();
});

it('refuses a second supervisor, unless they share', async () => {
  const first = await start({ shared: true });
  await expect(start()).rejects.toThrow(`is used by process ${process.pid}`);
  const second = await start({ shared: true });
  expect(second.pid).toBe(first.pid);
  await first.stop();
  await ask(second.url, 'select 1');
  await second.stop();
  expect(await alive(second.pid)).toBe(false);
});

it('takes over the server of a supervisor that was killed', async () => {
  const lost = await start();
  await loseSupervisor();
  const found = await start();
  expect(found.pid).toBe(lost.pid);
  await found.stop();
  expect(await alive(lost.pid)).toBe(false);
});

it('recovers when the server was killed, too, and its number belongs to another process by now', async () => {
  const onExit = vi.fn();
  const lost = await start({ onExit });
  process.kill(lost.pid, 'SIGKILL');
  await eventually(() => onExit.mock.calls.length === 1);
  await loseSupervisor();
  const file = join(stateDir, 'postgres', 'postmaster.pid');
  await writeFile(file, (await readFile(file, 'utf8')).replace(/^\d+/, String(process.pid)));
  const next = await start();
  expect(await ask(next.url, 'select * from kept')).toEqual([{ one: 1 }]);
  await next.stop();
});

it('takes another port when its own is busy, and keeps it', async () => {
  const { port } = await state();
  const squatter = createServer().listen(port, '127.0.0.1');
  await once(squatter, 'listening');
  const first = await start();
  expect(first.port).not.toBe(port);
  await first.stop();
  await new Promise((resolve) => squatter.close(resolve));
  expect((await state()).port).toBe(first.port);
  const second = await start();
  // Which it gets, unless somebody else has it by now.
  expect(second.port).not.toBe(port);
  await second.stop();
});

it.runIf(process.getuid?.() === 0)('works below a folder that only root may enter', async () => {
  const closed = await mkdtemp(join(tmpdir(), 'banyan-closed-')); // mode 0700
  const first = await start({ stateDir: closed });
  await first.stop();
  const { dataDir } = await state(closed);
  expect(dataDir).toMatch(/^\/var\/lib\/banyan\//);
  await rm(join(closed, 'postgres.json')); // the state folder was deleted and made anew
  const second = await start({ stateDir: closed });
  await ask(second.url, 'select 1');
  await second.stop();
  await rm(closed, { recursive: true });
  await rm(dirname(dataDir), { recursive: true });
});

it('says why it could not start', async () => {
  await expect(start({ settings: ['shared_buffers=plenty'] })).rejects.toThrow(
    'invalid value for parameter "shared_buffers"',
  );
  await (await start()).stop();
});
