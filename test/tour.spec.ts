import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, freePort, projectRoot } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** The tour as the README has it: the code of each section, under its heading. */
function sections(): { title: string; code: string }[] {
  const readme = readFileSync(join(projectRoot, 'README.md'), 'utf8');
  const tour = /^## A tour of ten minutes\n(.*?)^## /ms.exec(readme)?.[1] ?? '';
  return tour.split(/^### /m).flatMap((section, i) => {
    const title = i === 0 ? 'Begin' : section.slice(0, section.indexOf('\n'));
    const blocks = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, code]) => code!);
    expect(blocks.length, `${title} has one block`).toBe(1);
    return { title, code: blocks[0]! };
  });
}

/** What each section has to show a reader, who sees JSON a line; `run` types something more. */
const shows: Record<string, (lines: string[], run: Shell['run']) => void | Promise<void>> = {
  Begin: (lines) => expect(lines).toEqual([]),
  'Look around': (lines) => {
    const [all, found, stock] = lines.map((line) => JSON.parse(line));
    expect(all).toMatchObject({ items: [{}, {}], nextCursor: expect.any(String) });
    expect(found.items[0].name).toMatch(/Espresso Cup/);
    expect(stock).toMatchObject({ sku: found.items[0].sku, reserved: 0 });
    before = stock.available;
  },
  'Register and sign in': (lines) => {
    const [registered, me] = lines.map((line) => JSON.parse(line));
    expect(registered).toMatchObject({ email: 'me@example.com', roles: ['customer'] });
    expect(me).toEqual(registered);
  },
  'Order something': (lines) => {
    expect(JSON.parse(lines[0]!)).toMatchObject({ items: [{ quantity: 2 }] });
    expect(lines[1]).toMatch(/^idempotent-replayed: true/i);
  },
  'Follow it': (lines) => {
    const [decided, shipped, stock] = lines.map((line) => JSON.parse(line));
    // The carrier may have been there by the time that the reader asks.
    expect(['confirmed', 'shipped']).toContain(decided.status);
    expect(shipped).toMatchObject({ id: decided.id, status: 'shipped', shipment: { status: 'dispatched' } });
    expect(stock).toMatchObject({ reserved: 0, available: before - 2 });
    orderId = decided.id;
  },
  'Give money back, as staff': (lines) => {
    const [refused, refund, payment] = lines.map((line) => JSON.parse(line));
    expect(refused).toMatchObject({ status: 403, code: 'FORBIDDEN' });
    expect(refund).toMatchObject({ amount: { amount: 500 }, reason: 'one of them arrived chipped' });
    expect(payment).toMatchObject({ orderId, refunded: { amount: 500 }, status: 'partially_refunded' });
  },
  'Read the reference': (lines) => expect(lines).toEqual(['Banyan shop']),
  'Take inventory out': (lines) => {
    const said = lines.join('\n');
    expect(said).toMatch(/^inventory +monolith +monolith +1/m);
    for (const stage of ['replicate', 'shadow', 'canary', 'live']) expect(said).toMatch(new RegExp(`✔ ${stage} `));
    expect(said).toMatch(/^inventory is live/m);
    expect(lines.at(-1)).toMatch(/^banyan-served-by: service/i);
  },
  'Buy from the service': async (lines, run) => {
    const [cart, stock, service, bought, monolith, copied] = json(lines);
    expect(cart).toMatchObject({ items: [{ quantity: 1 }] });
    expect(stock).toMatchObject({ reserved: 0, available: before - 3 });
    expect(service).toEqual({ current_database: 'banyan_inventory', open: true, epoch: '2' });
    expect(bought).toEqual({ on_hand: String(before - 3), reserved: '0', sold: '3' });
    expect(monolith).toEqual({ current_database: 'postgres', open: false, epoch: '2' });
    expect(copied).toEqual({ on_hand: expect.any(String), reserved: expect.any(String), sold: expect.any(String) });
    // It is a copy, which comes a moment later.
    const again = `sql monolith "select on_hand, reserved, sold from stock_item where sku = '$SKU'"`;
    await eventually(async () => expect(json(await run(again))).toEqual([bought]) ?? true, { timeoutMs: 60_000 });
  },
  'Take it back': (lines) => {
    expect(lines.join('\n')).toMatch(/^inventory is back in monolith/m);
    const [stock, monolith] = json(lines);
    expect(stock).toMatchObject({ available: before - 3 });
    expect(monolith).toEqual({ current_database: 'postgres', open: true, epoch: '3' });
  },
  'The same with a flag': (lines) => {
    const said = lines.join('\n');
    expect(said).toMatch(/stage +replicate/);
    expect(said).toMatch(/monolith -> replicate/);
  },
  'Stop it and start it again': (lines) => {
    const [orders] = json(lines);
    expect(orders).toMatchObject({ items: [{ id: expect.any(String) }] });
    expect(orders.nextCursor, 'there is an older order').not.toBeNull();
  },
};
const json = (lines: string[]) => lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
let before = 0;
let orderId = '';

/** `npm start` in a terminal of its own: a process group, so that Ctrl-C reaches all of it. */
class Terminal {
  private constructor(
    private readonly npm: ChildProcess,
    private readonly stateDir: string,
  ) {}

  static async npmStart(port: number, controlPort: number, stateDir: string): Promise<Terminal> {
    const settings = {
      BANYAN_STATE_DIR: stateDir,
      PORT: String(port),
      CONTROL_PORT: String(controlPort),
      // Any, beside whatever else runs on this machine.
      ...{ INTERNAL_PORT: '0', MONOLITH_PORT: '0', RPC_PORT: '0', PSP_PORT: '0', SERVICE_PORTS_FROM: '0' },
    };
    const npm = spawn('npm', ['start'], {
      cwd: projectRoot,
      env: { ...process.env, NODE_ENV: undefined, DATABASE_URL: undefined, PSP_URL: undefined, ...settings },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    const terminal = new Terminal(npm, stateDir);
    for (const stream of [npm.stdout, npm.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (said += text));
    await eventually(
      () => {
        if (npm.exitCode !== null) throw new Error(`npm start ended with ${npm.exitCode}: ${said}`);
        return said.includes('Banyan is running');
      },
      { timeoutMs: 150_000, intervalMs: 100 },
    );
    expect(said).toContain(`http://localhost:${port}`);
    return terminal;
  }

  get pids(): number[] {
    const file = join(this.stateDir, 'runtime.json');
    if (!existsSync(file)) return [];
    const { processes } = JSON.parse(readFileSync(file, 'utf8')) as { processes: { pid: number }[] };
    return processes.map(({ pid }) => pid);
  }

  async ctrlC(): Promise<void> {
    // Those of a context that has just come home are ended a moment later.
    const pids = await eventually(
      () => {
        const { pids } = this;
        expect(pids, 'proxy, monolith, control plane, payment simulator, Postgres').toHaveLength(5);
        return pids;
      },
      { timeoutMs: 30_000 },
    );
    const gone = once(this.npm, 'exit');
    process.kill(-this.npm.pid!, 'SIGINT');
    await gone;
    await eventually(() => expect([...pids, -this.npm.pid!].filter(isAlive), 'processes left').toEqual([]) ?? true);
  }

  end(): void {
    if (this.npm.exitCode === null && isAlive(-this.npm.pid!)) process.kill(-this.npm.pid!, 'SIGINT');
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** One bash for the whole tour: what a section sets is there in the next. */
class Shell {
  readonly #bash: ChildProcessWithoutNullStreams;
  #said = '';

  constructor(stateDir: string) {
    this.#bash = spawn('bash', ['--norc'], {
      cwd: projectRoot,
      env: { ...process.env, NO_COLOR: '1', BANYAN_STATE_DIR: stateDir },
    });
    for (const stream of [this.#bash.stdout, this.#bash.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (this.#said += text));
  }

  /** What the code prints, line by line. */
  async run(code: string): Promise<string[]> {
    this.#said = '';
    const end = `end of section ${Math.random()}`;
    this.#bash.stdin.write(`${code}\necho "${end}"\n`);
    await eventually(() => this.#said.includes(end), { timeoutMs: 180_000 });
    return this.#said.split(end)[0]!.split('\n').filter(Boolean);
  }

  end(): void {
    this.#bash.kill();
  }
}

describe('The tour in the README', () => {
  const tour = sections();
  let shell: Shell;
  let stateDir: string;
  let [port, controlPort] = [0, 0];
  let terminal: Terminal | undefined;

  beforeAll(async () => {
    stateDir = await mkdtemp(join(tmpdir(), 'banyan-tour-'));
    shell = new Shell(stateDir);
    [port, controlPort] = [await freePort(), await freePort()];
    terminal = await Terminal.npmStart(port, controlPort, stateDir);
  }, 180_000);
  afterAll(async () => {
    shell?.end();
    terminal?.end();
    await rm(stateDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 });
  });

  it('is checked in every section', () => {
    expect(tour.map(({ title }) => title)).toEqual(Object.keys(shows));
  });

  it.each(tour)('$title', { timeout: 400_000 }, async ({ title, code }) => {
    if (title === 'Stop it and start it again') {
      await terminal!.ctrlC();
      terminal = await Terminal.npmStart(port, controlPort, stateDir);
    }
    const here = code
      .replaceAll('http://localhost:8080', `http://localhost:${port}`)
      .replaceAll('http://localhost:8090', `http://localhost:${controlPort}`)
      .replaceAll('.banyan/', `${stateDir}/`);
    const lines = await shell.run(here);
    await shows[title]!(lines, (code) => shell.run(code));
  });

  it('ends with Ctrl-C, which leaves no process', { timeout: 90_000 }, async () => {
    await terminal!.ctrlC();
    terminal = undefined;
  });
});

describe('The README', () => {
  it('links only to what is there', () => {
    const readme = readFileSync(join(projectRoot, 'README.md'), 'utf8');
    const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map(([, path]) => path!);
    expect(links.length).toBeGreaterThan(5);
    expect(links.filter((path) => !existsSync(join(projectRoot, path)))).toEqual([]);
  });
});
