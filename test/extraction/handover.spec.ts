import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createControlPlane, type ProcessState, Runtime, type Wanted } from '@banyan/control-plane';
import type { ContextStatus, Stage } from '@banyan/extraction';
import { Database, ensureContextDatabases, roleUrl } from '@banyan/platform/database';
import { loadConfig } from '@banyan/platform/config';
import { shutDown } from '@banyan/platform/http';
import { type TestDatabase, createTestDatabase, eventually, migrationsDir } from '@banyan/testing';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { Bridge } from '../../apps/bridge/src/bridge.js';

/* The control plane, the bridge and both databases are real; the service is its database only. */

const OPERATOR = 'operator-token-of-the-spec';
const patient = { timeoutMs: 30_000 };

/** Bridges in this process, and services that are always ready. */
class InProcess extends Runtime {
  private wanted: readonly Wanted[] = [];
  private readonly bridges = new Map<string, { stop: () => Promise<void> }>();
  private readonly ending = new Set<Promise<void>>();
  private readonly listeners = new Set<() => void>();

  want(list: readonly Wanted[]): void {
    this.wanted = list;
    for (const { role, context, settings } of list)
      if (role === 'bridge' && !this.bridges.has(context)) this.bridges.set(context, run(context, settings));
    for (const [context, { stop }] of this.bridges)
      if (!list.some((each) => each.context === context)) {
        this.bridges.delete(context);
        this.ending.add(stop());
      }
    for (const fn of this.listeners) fn();
  }
  async kill(context: string): Promise<void> {
    await this.bridges.get(context)?.stop();
    this.bridges.delete(context);
  }
  revive(): void {
    this.want(this.wanted);
  }
  letGo(): void {}
  observe(): readonly ProcessState[] {
    return this.wanted.map(({ role, context }) => ({
      role,
      context,
      ready: role === 'service' || this.bridges.has(context),
      ...(role === 'service' && { endpoints: { http: ['http://127.0.0.1:9'], rpc: [{ host: '127.0.0.1', port: 9 }] } }),
    }));
  }
  onChange(fn: () => void): () => void {
    this.listeners.add(fn);
    return () => void this.listeners.delete(fn);
  }
  async start(): Promise<void> {}
  async stop(): Promise<void> {
    await Promise.all([...this.ending, ...[...this.bridges.values()].map(({ stop }) => stop())]);
  }
}

function run(context: string, settings: Record<string, string>): { stop: () => Promise<void> } {
  const bridge = new Bridge(context, {
    monolith: settings['BANYAN_DATABASE_URL_MONOLITH']!,
    service: settings['BANYAN_DATABASE_URL_SERVICE']!,
  });
  const abort = new AbortController();
  const ended = bridge.run(abort.signal, () => {});
  return {
    stop: async () => {
      abort.abort();
      await ended;
      await bridge.close();
    },
  };
}

let monolith: TestDatabase;
let service: TestDatabase;
let stateDir: string;
let app: NestFastifyApplication;
let runtime: InProcess;
let url: string;
const sides: Partial<Record<'monolith' | 'service', Database>> = {};

beforeAll(async () => {
  monolith = await createTestDatabase(inject('adminUrl'));
  service = await createTestDatabase(inject('adminUrl'), { contexts: [] });
  stateDir = await mkdtemp(join(tmpdir(), 'banyan-handover-'));
  await ensureContextDatabases({ adminUrl: service.adminUrl, contexts: ['inventory'], side: 'service', migrationsDir });
  for (const [side, { adminUrl }] of Object.entries({ monolith, service }))
    sides[side as 'monolith'] = new Database({ context: 'inventory', url: roleUrl(adminUrl, 'inventory'), max: 4 });
  runtime = new InProcess();
  const config = loadConfig({
    DATABASE_URL: monolith.adminUrl,
    INVENTORY_SERVICE_DATABASE_URL: service.adminUrl,
    BANYAN_STATE_DIR: stateDir,
    BANYAN_OPERATOR_TOKEN: OPERATOR,
    BANYAN_FLAGS_REFRESH_MS: '100',
  });
  app = await createControlPlane(config, { logger: false, runtime });
  await app.listen(0, '127.0.0.1');
  url = await app.getUrl();
});

afterAll(async () => {
  await shutDown(app, 100);
  await Promise.all(Object.values(sides).map((side) => side.close()));
  await monolith.drop();
  await service.drop();
  await rm(stateDir, { recursive: true });
});

async function ask(method: 'GET' | 'POST', path: string, body?: object) {
  const answer = await fetch(`${url}/control/contexts/inventory${path}`, {
    method,
    headers: { authorization: `Bearer ${OPERATOR}`, ...(body && { 'content-type': 'application/json' }) },
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${answer.status} ${text}`);
  return JSON.parse(text) as ContextStatus;
}

/** Taken as soon as the control plane acts. */
const order = (path: string, body: object) => eventually(() => ask('POST', path, body), patient);

const reaches = (stage: Stage) =>
  eventually(
    async () => {
      const status = await ask('GET', '');
      if (status.stage !== stage) throw new Error(`at ${status.stage}: ${status.doing}; ${status.blocked}`);
      return status;
    },
    { timeoutMs: 60_000, intervalMs: 50 },
  );

/** A caller that writes all the time, on whichever side lets it: what a router with its retries looks like from here. */
class Writer {
  written = 0;
  private going = true;
  private readonly done = this.go();

  async stop(): Promise<void> {
    this.going = false;
    await this.done;
  }

  private async go(): Promise<void> {
    let side: 'monolith' | 'service' = 'monolith';
    while (this.going) {
      try {
        await sides[side]!.transaction({ text: `select banyan_fence('${side}', 0)` }, () =>
          sides[side]!.query('insert into inbox (event_id, type, received_at) values (gen_random_uuid(), $1, now())', [
            `w${this.written + 1}`,
          ]),
        );
        this.written += 1;
        await new Promise((resolve) => setTimeout(resolve, 2));
      } catch {
        side = side === 'monolith' ? 'service' : 'monolith';
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  }
}

/** Looks at both rows all the time, and would see two owners. */
class Checker {
  twice = 0;
  looks = 0;
  private going = true;
  private readonly done = this.go();

  async stop(): Promise<void> {
    this.going = false;
    await this.done;
  }

  private async go(): Promise<void> {
    const read = 'select open, epoch::int from inventory.banyan_owner';
    type Row = { open: boolean; epoch: number };
    while (this.going) {
      const [before] = await monolith.admin<Row>(read);
      const [other] = await service.admin<Row>(read);
      const [after] = await monolith.admin<Row>(read);
      // Open before and after the other side was seen open, at the same epoch: so at the same time.
      if (before!.open && after!.open && before!.epoch === after!.epoch && other!.open) this.twice += 1;
      this.looks += 1;
    }
  }
}

const writes = async (database: TestDatabase) =>
  (await database.admin<{ n: number }>(`select count(*)::int as n from inventory.inbox where type like 'w%'`))[0]!.n;

it('goes to the service and back under writes: nothing is lost, nothing is doubled, and there is one owner', async () => {
  const writer = new Writer();
  const checker = new Checker();
  try {
    for (let cycle = 0; cycle < 3; cycle++) {
      await order('/target', { stage: 'live', force: true });
      await reaches('live');
      await eventually(async () => (await writes(service)) > 10, patient);
      await order('/target', { stage: 'canary' });
      await reaches('canary');
    }
    await order('/rollback', {});
    await reaches('monolith');
  } finally {
    await writer.stop();
    await checker.stop();
  }
  expect(await writes(monolith)).toBe(writer.written);
  expect(checker.twice).toBe(0);
  expect(checker.looks).toBeGreaterThan(100);
}, 400_000);

it('is called off while the bridge is away, goes on when it is back, and comes to its end', async () => {
  await order('/target', { stage: 'canary', force: true });
  await reaches('canary');
  const writer = new Writer();
  const checker = new Checker();
  try {
    // Dead at the very moment: the closing is seen by nobody.
    await order('/freeze', { frozen: true });
    await runtime.kill('inventory');
    const { epoch } = await ask('GET', '');
    // It gives up, and nothing has changed, when a command that it waits for takes more than a second.
    await eventually(() => monolith.admin(`select inventory.banyan_close($1, 'service')`, [epoch]), patient);
    await eventually(async () => (await ask('GET', '')).epoch === epoch + 2, patient);
    expect((await ask('GET', '')).owner).toBe('monolith');
    runtime.revive();
    await order('/freeze', { frozen: false });
    await order('/target', { stage: 'live', force: true });
    await reaches('live');
    await order('/rollback', { to: 'canary' });
    await reaches('canary');
  } finally {
    await writer.stop();
    await checker.stop();
  }
  expect(checker.twice).toBe(0);
  await eventually(async () => (await writes(service)) === (await writes(monolith)), patient);
  await order('/rollback', {});
  await reaches('monolith');
  // Nothing of the streams is left.
  const [one, other] = [monolith, service].map(({ adminUrl }) => new URL(adminUrl).pathname.slice(1));
  const slots = 'select from pg_replication_slots where database in ($1, $2)';
  await eventually(async () => (await monolith.admin(slots, [one, other])).length === 0, patient);
}, 400_000);
