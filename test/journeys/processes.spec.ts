import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ContextRouting, Routing } from '@banyan/extraction';
import { newId } from '@banyan/kernel';
import { loadConfig } from '@banyan/platform/config';
import {
  type PspProcess,
  type TestDatabase,
  createTestDatabase,
  eventually,
  freePort,
  startPsp,
} from '@banyan/testing';
import { Pool } from 'undici';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { FakeControlPlane } from '../shop/fake-control-plane.js';
import { AppProcess } from '../shop/processes.js';
import { TokenMint } from '../shop/token-mint.js';
import { Visitor } from '../shop/visitor.js';

const token = 'the token of the routers';
const LEFT = ['inventory', 'orders'];

let monolithDatabase: TestDatabase;
const databases = new Map<string, TestDatabase>();
const processes = new Map<string, AppProcess>();
const pools: Pool[] = [];
let control: FakeControlPlane;
let routing: Routing;
let psp: PspProcess;
let mint: TokenMint;
let stateDir: string;

const patient = { timeoutMs: 20_000 };
const visitor = async (role: 'customer' | 'staff', pool = pools[0]!) => {
  const id = newId();
  return new Visitor(pool, { id, token: await mint.token(id, [role]) });
};
const poolOf = (http: string) => {
  const pool = new Pool(http, { connections: 8 });
  pools.push(pool);
  return pool;
};
const inventory = (changes: Partial<ContextRouting>): Routing => ({
  ...routing,
  contexts: { ...routing.contexts, inventory: { ...routing.contexts['inventory']!, ...changes } },
});

beforeAll(async () => {
  const endpoints = async () => ({
    http: [`http://127.0.0.1:${await freePort()}`],
    rpc: [{ host: '127.0.0.1', port: await freePort() }],
  });
  stateDir = await mkdtemp(join(tmpdir(), 'banyan-processes-'));
  monolithDatabase = await createTestDatabase(inject('adminUrl'));
  routing = { revision: 1, monolith: await endpoints(), contexts: {} };
  for (const context of LEFT) {
    const database = await createTestDatabase(inject('adminUrl'));
    databases.set(context, database);
    await database.admin(`update ${context}.banyan_owner set side = 'service', epoch = 2`);
    await monolithDatabase.admin(`update ${context}.banyan_owner set open = false, epoch = 2`);
    routing.contexts[context] = {
      stage: 'live',
      owner: 'service',
      epoch: 2,
      holding: false,
      since: new Date().toISOString(),
      service: await endpoints(),
    };
  }
  control = await FakeControlPlane.start(routing, token);
  psp = await startPsp({ PSP_WEBHOOK_URL: `${routing.monolith.http[0]}/v1/webhooks/psp`, PSP_WEBHOOK_SECRET: newId() });

  const shared = {
    PATH: '',
    BANYAN_STATE_DIR: stateDir,
    BANYAN_CLIENT_TOKEN: token,
    BANYAN_SECRET: `${newId()}${newId()}`,
    BANYAN_SEED: 'off',
    CONTROL_URL: control.url,
    PSP_URL: psp.url,
    LOG_LEVEL: 'warn',
    // Longer than what happens meanwhile takes.
    BANYAN_HOLD_MS: '8000',
    BANYAN_SHUTDOWN_MS: '20000',
  };
  mint = await TokenMint.open(monolithDatabase, loadConfig(shared));
  const start = async (app: string, { http, rpc }: Routing['monolith'], databaseUrl: string) => {
    const env = {
      ...shared,
      DATABASE_URL: databaseUrl,
      PORT: new URL(http[0]!).port,
      RPC_PORT: String(rpc[0]!.port),
      INTERNAL_PORT: '0',
    };
    processes.set(app, await AppProcess.start(app, env));
  };
  await Promise.all([
    start('monolith', routing.monolith, monolithDatabase.adminUrl),
    ...LEFT.map((context) =>
      start(`${context}-service`, routing.contexts[context]!.service!, databases.get(context)!.adminUrl),
    ),
  ]);
  poolOf(routing.monolith.http[0]!);
  // One that was told late has started without: each keeps what it has been told.
  const told = ['monolith', ...LEFT.map((context) => `${context}-service`)];
  await eventually(() => told.every((role) => existsSync(join(stateDir, 'routing', `${role}.json`))), patient);
}, 120_000);

afterAll(async () => {
  for (const pool of pools) await pool.destroy();
  for (const process of processes.values()) await process.kill();
  await psp?.stop();
  await control?.stop();
  for (const database of [...databases.values(), monolithDatabase]) await database?.drop();
  await rm(stateDir, { recursive: true });
});

const sku = `SKU-${newId()}`;
const owner = (side: TestDatabase, open: boolean, epoch: number) =>
  side.admin('update inventory.banyan_owner set open = $1, epoch = $2', [open, epoch]);

it('a purchase crosses the monolith and two services, each on its own database', async () => {
  const staff = await visitor('staff');
  const product = { sku, name: 'A mug', category: 'things', price: { amount: 1299, currency: 'EUR' } };
  (await staff.post('/v1/products', product)).expect(201);
  (await staff.put(`/v1/stock/${sku}`, { onHand: 5 })).expect(200);
  const ordersDatabase = databases.get('orders')!;
  await eventually(async () => (await ordersDatabase.admin('select 1 from orders.product')).length > 0, patient);
  const buyer = await visitor('customer');
  const id = await buyer.buy(sku, { quantity: 2 });
  await buyer.until(id, 'confirmed');
  expect(await databases.get('inventory')!.admin('select sold from inventory.stock_item')).toEqual([{ sold: '2' }]);
  expect(await monolithDatabase.admin('select 1 from inventory.stock_item')).toEqual([]);
  expect(await monolithDatabase.admin('select 1 from orders.orders')).toEqual([]);
});

it('a service answers over HTTP itself, and says so', async () => {
  const direct = await visitor('staff', poolOf(routing.contexts['inventory']!.service!.http[0]!));
  const answer = (await direct.get(`/v1/stock/${sku}`)).expect(200);
  expect(answer.headers['banyan-served-by']).toBe('service');
  expect(answer.body).toMatchObject({ onHand: 3, available: 3 });
  const written = (await direct.put(`/v1/stock/${sku}`, { onHand: 7 })).expect(200);
  expect(written.headers['banyan-consistency']).toBe('inventory=service:2');
  (await (await visitor('customer')).get(`/v1/stock/${sku}`)).expect(200);
});

it('an owner that changes is found without a word from the control plane', async () => {
  const service = databases.get('inventory')!;
  const staff = await visitor('staff');
  await owner(service, false, 3);
  const held = staff.put('/v1/stock/SKU-moved', { onHand: 1 });
  await owner(monolithDatabase, true, 3);
  const answer = (await held).expect(200);
  expect(answer.headers['banyan-consistency']).toBe('inventory=monolith:3');
  expect(await monolithDatabase.admin('select on_hand from inventory.stock_item')).toEqual([{ on_hand: '1' }]);
  control.say(inventory({ stage: 'canary', owner: 'monolith', epoch: 3 }));
  const again = await eventually(async () => {
    const put = (await staff.put('/v1/stock/SKU-moved', { onHand: 2 })).expect(200);
    // The log is followed from here on: the token says how far it has got.
    return /^inventory=monolith:3:[0-9A-F]+\/[0-9A-F]+$/.test(put.headers['banyan-consistency']!) && put;
  }, patient);
  expect(again.headers['banyan-served-by']).toBe('monolith');
});

it('in canary a read of what was just written is never older, whichever side the edge has chosen', async () => {
  const staff = await visitor('staff');
  const put = (await staff.put('/v1/stock/SKU-moved', { onHand: 9 })).expect(200);
  const consistency = { 'banyan-consistency': put.headers['banyan-consistency']! };
  const placed = { 'banyan-placement': 'inventory=service' };
  // Nothing copies here: the service has never heard of it, and the owner makes it good.
  expect((await staff.get('/v1/stock/SKU-moved', { ...placed, ...consistency })).expect(200).body.onHand).toBe(9);
  const direct = await visitor('staff', poolOf(routing.contexts['inventory']!.service!.http[0]!));
  const behind = await direct.get('/v1/stock/SKU-moved', { ...placed, ...consistency });
  expect(behind.problem(503)).toBe('CONTEXT_BEHIND');
  expect(behind.headers['banyan-behind']).toBe('inventory');
  // Without a token it is asked, and says what it knows. When it takes its time the owner is asked, who does not know.
  await eventually(
    async () => expect((await staff.get(`/v1/stock/${sku}`, placed)).expect(200).body.onHand).toBe(7) ?? true,
    patient,
  );
});

it('when no side may write, nothing has run, and the answer says that it may be sent again', async () => {
  await owner(monolithDatabase, false, 4);
  const answer = await (await visitor('staff')).put('/v1/stock/SKU-moved', { onHand: 3 });
  expect(answer.problem(503)).toBe('CONTEXT_MOVED');
  expect(answer.headers['banyan-fenced']).toBe('inventory');
  expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
  await owner(monolithDatabase, true, 5);
});

it('reads that canary sends to a service that is dead, or hangs, come from the owner', async () => {
  const staff = await visitor('staff');
  const placed = { 'banyan-placement': 'inventory=service' };
  const service = processes.get('inventory-service')!;
  service.child.kill('SIGSTOP');
  const hung = (await staff.get('/v1/stock/SKU-moved', placed)).expect(200);
  expect(hung.body.onHand).toBe(9);
  await service.kill();
  expect((await staff.get('/v1/stock/SKU-moved', placed)).expect(200).body.onHand).toBe(9);
});

it('a process ends by itself when its parent is gone', async () => {
  const started = [...processes].map(([app, { startedInMs }]) => `${app} ${Math.round(startedInMs)} ms`);
  expect(await processes.get('orders-service')!.leave(), started.join(', ')).toBe(0);
});
