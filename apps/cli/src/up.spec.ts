import { eventually, freePort } from '@banyan/testing';
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isAlive } from './is-alive.js';
import { type Role, type Runtime, readRuntime } from './runtime-file.js';

/*
 * The real command with everything real below it: an embedded Postgres of its own, the simulator, the monolith, the
 * control plane and the proxy.
 * The specs are one story in their order: start, look, disturb, stop, start again, kill.
 */
const workspace = join(import.meta.dirname, '../../..');
const banyan = join(workspace, 'apps/cli/bin/banyan.mjs');
const folder = mkdtempSync(join(tmpdir(), 'banyan-up-'));
const started: ChildProcess[] = [];

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

const everyPort = (port: string) => ({
  PORT: port,
  CONTROL_PORT: port,
  INTERNAL_PORT: port,
  MONOLITH_PORT: port,
  RPC_PORT: port,
  PSP_PORT: port,
  SERVICE_PORTS_FROM: port,
});

const environment = (settings: Record<string, string> = {}) => ({
  ...process.env,
  NODE_ENV: undefined,
  DATABASE_URL: undefined,
  PSP_URL: undefined,
  BANYAN_STATE_DIR: join(folder, 'state'),
  CONTROL_URL: undefined,
  BANYAN_OPERATOR_TOKEN: undefined,
  ...everyPort('0'),
  ...settings,
});

function run(args: string[], settings?: Record<string, string>): Promise<Ended> {
  return new Promise((done) =>
    execFile(process.execPath, [banyan, ...args], { env: environment(settings) }, (error, stdout, stderr) =>
      done({ code: error ? Number(error.code) : 0, stdout, stderr }),
    ),
  );
}

/** Starts `banyan up --json` and resolves at its `ready` line. */
async function up(): Promise<{ supervisor: ChildProcess; ms: number; lines: Record<string, unknown>[] }> {
  const supervisor = spawn(process.execPath, [banyan, 'up', '--json'], {
    env: environment(),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  started.push(supervisor);
  const lines: Record<string, unknown>[] = [];
  const ms = await new Promise<number>((ready, failed) => {
    createInterface({ input: supervisor.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const happening = JSON.parse(line) as Record<string, unknown>;
      lines.push(happening);
      if (happening.event === 'ready') ready(happening.ms as number);
      if (happening.ok === false) failed(new Error(line));
    });
  });
  return { supervisor, ms, lines };
}

const runtime = async (): Promise<Runtime> => (await readRuntime(join(folder, 'state'))) as Runtime;
const pids = async (): Promise<number[]> => (await runtime()).processes.map(({ pid }) => pid);
const pidOf = async (role: Role) => (await runtime()).processes.find((process) => process.role === role)?.pid as number;
const allReady = async () => (await run(['status'])).code === 0;
const slowly = { timeoutMs: 90_000, intervalMs: 200 };
const products = async () => {
  const { urls } = await runtime();
  const response = await fetch(`${urls.proxy}/v1/products?limit=1`, { signal: AbortSignal.timeout(20_000) });
  return { status: response.status, body: (await response.json()) as { items: unknown[] } };
};

const roles = ['proxy', 'monolith', 'control-plane', 'psp-simulator', 'postgres'] as const;

describe('banyan up', () => {
  let first: Awaited<ReturnType<typeof up>>;

  beforeAll(async () => {
    execFileSync(process.execPath, [join(workspace, 'tools/build.mjs')]);
    first = await up();
  }, 120_000);

  afterAll(() => {
    for (const process of started) process.kill('SIGINT');
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 });
  });

  it('serves the seeded shop', async () => {
    const { status, body } = await products();
    expect(status).toBe(200);
    expect(body.items).toHaveLength(1);
  });

  it('says in runtime.json what runs, for its owner only', async () => {
    const { version, processes, urls, databases } = await runtime();
    expect(version).toBe(1);
    expect(processes.map(({ role }) => role)).toEqual(roles);
    for (const { pid, ports } of processes) {
      expect(isAlive(pid)).toBe(true);
      expect(ports.length).toBeGreaterThan(0);
    }
    const url = expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/);
    expect(urls).toEqual({ proxy: url, monolith: url, control: url });
    expect(new Set(Object.values(urls)).size).toBe(3);
    expect(Object.keys(databases)).toHaveLength(7);
    expect(databases.orders?.monolith).toMatch(/^postgres:\/\/banyan_orders:/);
    expect(statSync(join(folder, 'state/runtime.json')).mode & 0o777).toBe(0o600);
  });

  it('has a status that says the same', { timeout: 120_000 }, async () => {
    // Who does not answer its probe in time is not ready.
    const { stdout } = await eventually(async () => {
      const answer = await run(['status', '--json']);
      return answer.code === 0 && answer;
    }, slowly);
    const { ok, processes, contexts } = JSON.parse(stdout) as {
      ok: boolean;
      processes: { state: string }[];
      contexts: { stage: string }[];
    };
    expect(ok).toBe(true);
    expect(processes.map(({ state }) => state)).toEqual(roles.map(() => 'ready'));
    expect(contexts.map(({ stage }) => stage)).toEqual(Array(7).fill('monolith'));
  });

  it('refuses a second one on the same state, in one line that names the first', async () => {
    const { code, stderr } = await run(['up']);
    expect(code).toBe(3);
    expect(stderr).toMatch(new RegExp(`^Banyan already runs on .*, as process ${first.supervisor.pid}: .*\n$`));
  });

  it('says in one line that a port is in use, and starts nothing', async () => {
    const taken = createServer().listen(0, '0.0.0.0');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    const state = join(folder, 'other');
    for (const variable of ['PORT', 'CONTROL_PORT']) {
      const { code, stderr } = await run(['up'], { BANYAN_STATE_DIR: state, [variable]: String(port) });
      expect(code).toBe(4);
      expect(stderr).toBe(`Port ${port} is in use: set ${variable} to a free one.\n`);
    }
    expect(existsSync(join(state, 'postgres'))).toBe(false);
    taken.close();
  });

  it('does not give one port to two', async () => {
    const port = await freePort();
    const twice = { PORT: String(port), CONTROL_PORT: String(port), BANYAN_STATE_DIR: join(folder, 'other') };
    const { code, stderr } = await run(['up'], twice);
    expect(code).toBe(4);
    expect(stderr).toBe(`Port ${port} is given to another process of Banyan: set CONTROL_PORT to a free one.\n`);
  });

  it('lists what is wrong with the settings', async () => {
    const { code, stderr } = await run(['up'], { PORT: 'many', INTERNAL_PORT: '-1' });
    expect(code).toBe(78);
    expect(stderr).toMatch(/PORT: .*\n.*INTERNAL_PORT: /);
  });

  it.each(roles)('starts %s again when it was killed', { timeout: 120_000 }, async (role) => {
    const before = await pidOf(role);
    process.kill(before, 'SIGKILL');
    await eventually(async () => {
      const after = await pidOf(role);
      expect(after).toEqual(expect.any(Number));
      expect(after).not.toBe(before);
      return (await products()).status === 200 && (await allReady());
    }, slowly);
    const notices = first.lines.filter(({ event }) => event === 'notice').map(({ message }) => message);
    expect(notices).toContainEqual(expect.stringMatching(new RegExp(`^${role} ended by itself`, 'i')));
  });

  it('runs what the control plane wants, over its death', { timeout: 240_000 }, async () => {
    expect(await run(['extract', 'inventory', '--to', 'replicate'])).toMatchObject({ code: 0 });
    const extracted = async () => {
      const { processes } = await runtime();
      const ours = processes.filter(({ context }) => context === 'inventory');
      return (['service', 'bridge'] as const).map((role) => ours.find((each) => each.role === role)?.pid);
    };
    const running = async () => {
      const pids = await extracted();
      expect(pids).toEqual([expect.any(Number), expect.any(Number)]);
      return pids;
    };
    // What runs is written down a moment after it is told.
    const [service, bridge] = await eventually(running, slowly);
    const { databases } = await runtime();
    expect(databases.inventory?.service).toMatch(/^postgres:\/\/banyan_inventory:.*\/banyan_inventory$/);

    const controlPlane = await pidOf('control-plane');
    process.kill(controlPlane, 'SIGKILL');
    await eventually(async () => (await pidOf('control-plane')) !== controlPlane && (await allReady()), slowly);
    expect(await extracted()).toEqual([service, bridge]);

    for (const pid of [service, bridge]) process.kill(pid as number, 'SIGKILL');
    await eventually(async () => {
      const again = await running();
      return !again.includes(service) && !again.includes(bridge) && (await allReady());
    }, slowly);
  });

  it('stops everything on SIGINT', { timeout: 120_000 }, async () => {
    const all = await pids();
    first.supervisor.kill('SIGINT');
    const [code] = (await once(first.supervisor, 'exit')) as [number];
    expect(code).toBe(0);
    // Its last words may still be in the pipe.
    await eventually(() => expect(first.lines.at(-1)).toEqual({ ok: true, stopped: true }));
    expect(all.filter(isAlive)).toEqual([]);
    expect(existsSync(join(folder, 'state/runtime.json'))).toBe(false);
    expect(await run(['status'])).toMatchObject({ code: 5 });
  });

  it(
    'is up again soon with what was taken out, and leaves nothing behind even when it is killed itself',
    { timeout: 300_000 },
    async () => {
      const second = await up();
      // 6 s is the promise for an idle machine with all in the monolith; here other specs run as well.
      expect(second.ms).toBeLessThan(60_000);
      expect((await products()).status).toBe(200);
      // It is up without them when they take long.
      await eventually(async () => {
        const { processes } = await runtime();
        const taken = processes.filter(({ context }) => context === 'inventory').map(({ role }) => role);
        return expect(taken).toEqual(['service', 'bridge']);
      }, slowly);

      const all = await pids();
      second.supervisor.kill('SIGKILL');
      // They may take as long to stop as when they are asked by whoever started them.
      await eventually(() => !all.some(isAlive), slowly);
      await eventually(() => !existsSync(join(folder, 'state/runtime.json')));
    },
  );
});
