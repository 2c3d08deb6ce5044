import { eventually, freePort } from '@banyan/testing';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isAlive } from './is-alive.js';
import { Ports } from './ports.js';
import { Screen } from './screen.js';
import { type ProcessState, type Wanted, WantedProcesses } from './wanted-processes.js';

/** Real processes that only listen on their ports, say that they are ready, and end when asked. */
const program = `
const { createServer } = require('node:net');
if (process.env.FAILS) { console.error('no disk'); process.exit(3); }
const ports = process.env.PORTS.split(',').map(Number);
let open = ports.length;
for (const port of ports) createServer().listen(port, '127.0.0.1', () => --open === 0 && process.send('ready'));
process.on('disconnect', () => process.exit());
process.on('SIGTERM', () => process.exit(0));
`;

describe('The processes that the control plane wants', () => {
  const folder = mkdtempSync(join(tmpdir(), 'banyan-wanted-'));
  const main = join(folder, 'program.cjs');
  writeFileSync(main, program);
  afterAll(() => rmSync(folder, { recursive: true }));

  let told: ProcessState[][];
  let processes: WantedProcesses;
  const begun: WantedProcesses[] = [];
  const begin = (portsFrom = 0, instances = 1): void => {
    told = [];
    processes = new WantedProcesses({
      screen: new (class extends Screen {
        override tell(): void {}
      })(true),
      ports: new Ports(),
      portsFrom,
      instancesOf: (role) => (role === 'service' ? instances : 1),
      specOf: ({ role, context, settings }, ports, instance) => ({
        role,
        context,
        instance,
        main,
        ports,
        env: { PORTS: ports.join(','), ...settings },
        log: join(folder, `${context}-${instance}.log`),
      }),
      changed: () => {},
      tell: (message) => void told.push(message.processes),
      stopLimitMs: 2_000,
    });
    begun.push(processes);
  };
  const want = (...wanted: Wanted[]) => processes.receive({ type: 'processes.want', wanted });
  const service = (context: string, settings = {}): Wanted => ({ role: 'service', context, settings });
  const bridge = (context: string): Wanted => ({ role: 'bridge', context, settings: {} });
  const settled = async () => {
    expect(await processes.settled(30_000)).toEqual([]);
  };
  const now = () => told.at(-1) ?? [];
  const of = (context: string) => now().find((each) => each.context === context) as ProcessState;

  beforeEach(() => begin());
  afterEach(async () => {
    for (const each of begun.splice(0)) await Promise.all([each.stop('service'), each.stop('bridge')]);
  });

  it('are started, and told with their ports when they are ready', async () => {
    want(service('inventory'), bridge('inventory'));
    await settled();
    expect(now()).toEqual([
      {
        role: 'service',
        context: 'inventory',
        pid: expect.any(Number),
        ports: expect.any(Array),
        ready: true,
        restarts: 0,
      },
      {
        role: 'bridge',
        context: 'inventory',
        pid: expect.any(Number),
        ports: [expect.any(Number)],
        ready: true,
        restarts: 0,
      },
    ]);
    expect(new Set(of('inventory').ports).size).toBe(3);
    expect(now().every(({ pid }) => isAlive(pid))).toBe(true);
  });

  it('are left alone when they are wanted again, and stopped when they are not', async () => {
    want(service('inventory'), service('orders'));
    await settled();
    const [inventory, orders] = [of('inventory').pid, of('orders').pid];
    want(service('inventory'));
    await eventually(() => !isAlive(orders));
    await eventually(() => now().length === 1);
    expect(of('inventory')).toMatchObject({ pid: inventory, ready: true, restarts: 0 });
  });

  it('are started anew when their settings have changed, and told again on demand', async () => {
    want(service('inventory'));
    await settled();
    const before = of('inventory').pid;
    want(service('inventory', { COLOUR: 'green' }));
    await eventually(() => of('inventory')?.ready && of('inventory').pid !== before);
    const soFar = told.length;
    processes.receive({ type: 'processes.ask' });
    expect(told).toHaveLength(soFar + 1);
    expect(now()).toMatchObject([{ context: 'inventory', ready: true }]);
  });

  it('come back soon and on the same ports when they were killed', async () => {
    want(service('inventory'));
    await settled();
    const before = of('inventory');
    process.kill(before.pid, 'SIGKILL');
    await eventually(() => told.some(([it]) => it && !it.ready && /SIGKILL/.test(it.error ?? '')));
    const after = await eventually(() => of('inventory').ready && of('inventory'));
    expect(after).toEqual({ ...before, pid: expect.any(Number), restarts: 1 });
    expect(after.pid).not.toBe(before.pid);
  });

  it('get ports from the first one upward, past those that are taken', async () => {
    const port = await freePort();
    const taken = createServer().listen(port, '127.0.0.1');
    await once(taken, 'listening');
    begin(port);
    want(service('inventory'), service('orders'));
    await settled();
    const all = [...of('inventory').ports, ...of('orders').ports];
    expect(new Set(all).size).toBe(6);
    expect(all).not.toContain(port);
    expect(Math.min(...all)).toBeGreaterThan(port);
    taken.close();
  });

  it('are as many as asked for, each with ports of its own; one that dies leaves the others alone', async () => {
    begin(0, 3);
    want(service('inventory'), bridge('inventory'));
    await settled();
    const services = () => now().filter(({ role }) => role === 'service');
    const before = services();
    expect(now()).toHaveLength(4);
    expect(new Set(before.flatMap(({ ports }) => ports)).size).toBe(9);
    process.kill(before[1]!.pid, 'SIGKILL');
    await eventually(() => services()[1]!.restarts === 1 && services()[1]!.ready);
    expect(services().map(({ ports }) => ports)).toEqual(before.map(({ ports }) => ports));
    expect(services().filter(({ pid }, at) => pid === before[at]!.pid)).toHaveLength(2);
    want();
    await eventually(() => now().length === 0 && before.every(({ pid }) => !isAlive(pid)));
  });

  it('say why they cannot start, and are tried again', async () => {
    want(service('inventory', { FAILS: 'yes' }));
    await eventually(() => of('inventory')?.restarts >= 2);
    expect(of('inventory')).toMatchObject({ ready: false, error: expect.stringMatching(/exit code 3.*no disk/) });
    expect(await processes.settled(0)).toEqual(['service inventory']);

    begin(65_535);
    want(service('orders'));
    await eventually(() => /SERVICE_PORTS_FROM/.test(of('orders')?.error ?? ''));
  });

  it('follow the last wish of many', async () => {
    for (let i = 0; i < 10; i++) want(...(i % 2 === 0 ? [service('inventory', { TRY: String(i) })] : []));
    want(service('inventory', { TRY: 'last' }));
    await settled();
    await eventually(() => of('inventory')?.ready);
    expect(processes.running).toHaveLength(1);
    expect(processes.running[0]?.spec.env.TRY).toBe('last');
  });

  it('ignore what nobody understands, and every wish once it all stops', async () => {
    want(service('inventory'));
    await settled();
    processes.receive({ type: 'processes.want', wanted: [{ role: 'proxy', context: '../..' }] });
    expect(processes.running).toHaveLength(1);
    const { pid } = of('inventory');
    await processes.stop('service');
    expect(isAlive(pid)).toBe(false);
    want(service('inventory'), service('orders'));
    expect(processes.wanted).toHaveLength(1);
    expect(processes.running.every((each) => each.pid === undefined)).toBe(true);
  });
});
