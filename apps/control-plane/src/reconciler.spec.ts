import { isDeepStrictEqual } from 'node:util';
import type { Routing } from '@banyan/extraction';
import { eventually } from '@banyan/testing';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  CLIENT,
  type Places,
  type SpecControlPlane,
  places,
  routingStream,
  startControlPlane,
} from './control-plane.spec-support.js';

// Each walks through many stages, and waits for each of them.
vi.setConfig({ testTimeout: 120_000 });

let at: Places;
let control: SpecControlPlane;

beforeEach(async () => {
  at = await places();
  control = await startControlPlane(at);
  await control.acts();
});
afterEach(async () => {
  await control.stop();
  await at.drop();
});

const owners = async () => {
  const read = 'select side, open, epoch::int from inventory.banyan_owner';
  const [monolith] = await at.monolith.admin<{ open: boolean; epoch: number }>(read);
  const [service] = await at.service.admin<{ open: boolean; epoch: number }>(read);
  return { monolith: monolith!, service: service! };
};
const target = (stage: string, more: object = {}) =>
  control.ask('POST', '/control/contexts/inventory/target', { stage, ...more });
const force = (stage: string) => target(stage, { force: true });
const rollback = (body: object = {}) => control.ask('POST', '/control/contexts/inventory/rollback', body);
const blocked = (text: string | RegExp) =>
  eventually(
    async () => {
      const status = await control.status('inventory');
      expect(status.blocked).toMatch(text);
      return status;
    },
    { timeoutMs: 30_000 },
  );
/** kill -9, as far as a spec can: nothing is said to anybody, and another one starts. */
const restart = async (settings: Record<string, string> = {}) => {
  const { streams, ill } = { streams: control.streams.streams, ill: control.runtime.ill };
  await control.stop();
  control = await startControlPlane(at, settings, (fresh) => {
    for (const [key, state] of streams) fresh.streams.streams.set(key, state);
    for (const [key, error] of ill) fresh.runtime.ill.set(key, error);
  });
  await control.acts();
};

describe('A context walks', () => {
  it('to live and back through every stage, and leaves nothing behind', async () => {
    expect((await target('live', { force: true, reason: 'Black Friday' })).status).toBe(202);
    const live = await control.reaches('inventory', 'live');
    expect(live.owner).toBe('service');
    expect(live.epoch).toBe(2);
    expect(live.percent).toBeGreaterThan(0);
    expect(live.transitions.map(({ to }) => to)).toEqual(['live', 'canary', 'shadow', 'replicate']);
    expect(new Set(live.transitions.map(({ reason }) => reason))).toEqual(new Set(['Black Friday']));
    expect(await owners()).toMatchObject({ monolith: { open: false, epoch: 2 }, service: { open: true, epoch: 2 } });
    expect(control.runtime.wanted.map(({ role, context }) => `${role} ${context}`)).toEqual([
      'service inventory',
      'bridge inventory',
    ]);
    // The way back is there; the stream that fed the service is over.
    await eventually(() => [...control.streams.streams.keys()].join() === 'inventory service');

    expect((await rollback()).status).toBe(202);
    const home = await control.reaches('inventory', 'monolith');
    expect(home.owner).toBe('monolith');
    expect(await owners()).toMatchObject({ monolith: { open: true, epoch: 3 }, service: { open: false, epoch: 3 } });
    await eventually(() => control.streams.streams.size === 0 && control.runtime.wanted.length === 0);
    const evidence = (await control.ask('GET', '/control/contexts/inventory/evidence')).body;
    expect(
      evidence.items.find(({ from, to }: { from: string; to: string }) => from === 'shadow' && to === 'canary'),
    ).toMatchObject({ forced: true });
    const audit = (await control.ask('GET', '/control/audit?limit=100')).body;
    expect(audit.items.map(({ action }: { action: string }) => action)).toEqual(
      expect.arrayContaining(['stage', 'force', 'target']),
    );

    // And once more, over what is left of the first time.
    await force('live');
    await control.reaches('inventory', 'live');
    expect(await owners()).toMatchObject({ monolith: { open: false, epoch: 4 }, service: { open: true, epoch: 4 } });
  });

  it('out again before all is gone that was there the last time', async () => {
    await force('live');
    await control.reaches('inventory', 'live');
    control.runtime.lingers = true;
    await rollback();
    await control.reaches('inventory', 'monolith');
    // The way back of the hand-over: it began without a copy, and the service has had every row since.
    expect(control.streams.streams.get('inventory monolith')?.copy).toBeNull();
    await target('shadow');
    await control.reaches('inventory', 'shadow');
    expect(control.streams.calls.filter((call) => call === 'prepare monolith with backfill')).toHaveLength(1);
  });

  it('and the routers hear of each step, hold commands only while the owner changes, and never go back', async () => {
    const heard: Routing[] = [];
    const stream = await routingStream(control.url, CLIENT, (routing) => heard.push(routing));
    await force('live');
    await control.reaches('inventory', 'live');
    await eventually(() => heard.at(-1)?.contexts.inventory?.stage === 'live');
    stream.close();
    // What is told of another context has the same of this one in it.
    const inventory = heard
      .flatMap(({ contexts }) => contexts.inventory ?? [])
      .filter((each, n, all) => !isDeepStrictEqual(each, all[n - 1]));
    expect([...new Set(inventory.map(({ stage }) => stage))]).toEqual([
      'monolith',
      'replicate',
      'shadow',
      'canary',
      'live',
    ]);
    expect(heard.map(({ revision }) => revision)).toEqual(
      heard.map(({ revision }) => revision).toSorted((a, b) => a - b),
    );
    const holding = inventory.findIndex((each) => each.holding);
    expect(inventory[holding]).toMatchObject({ stage: 'canary', owner: 'monolith', epoch: 1 });
    expect(inventory[holding + 1]).toMatchObject({ stage: 'live', owner: 'service', epoch: 2, holding: false });
    expect(inventory.filter((each) => each.holding)).toHaveLength(1);
  });

  it('from flags, too', async () => {
    const flag = `/api/admin/projects/default/features/extraction.inventory/environments/development`;
    const answer = await control.ask('GET', '/api/admin/projects/default/features');
    expect(answer.status).toBe(200);
    expect((await control.ask('POST', `${flag}/on`)).status).toBe(200);
    await target('replicate');
    await control.reaches('inventory', 'replicate');
    expect((await control.ask('POST', `${flag}/off`)).status).toBe(200);
    const home = await control.reaches('inventory', 'monolith');
    expect(home.transitions[0]).toMatchObject({ actor: 'flag' });
  });

  it('only where the gates hold, and says what is missing', async () => {
    await target('live');
    await control.reaches('inventory', 'shadow');
    const status = await blocked('Too few comparisons yet');
    expect(status).toMatchObject({ stage: 'shadow', target: 'live', doing: 'waiting at the gates of canary' });
    expect(status.gates.some(({ ok }) => !ok)).toBe(true);
    await force('live');
    await control.reaches('inventory', 'live');
  });

  it('not while it is frozen', async () => {
    await force('shadow');
    await control.reaches('inventory', 'shadow');
    await control.ask('POST', '/control/contexts/inventory/freeze', { frozen: true, reason: 'audit' });
    await force('live');
    expect(await blocked('frozen')).toMatchObject({ stage: 'shadow', frozen: true });
    await control.ask('POST', '/control/contexts/inventory/freeze', { frozen: false });
    await control.reaches('inventory', 'live');
  });
});

describe('A context stays where it was', () => {
  it('when nobody knows it, or the stage, or the step', async () => {
    expect(await control.ask('GET', '/control/contexts/cellar')).toMatchObject({
      status: 404,
      body: { code: 'CONTEXT_UNKNOWN', detail: expect.stringContaining('inventory') },
    });
    for (const stage of ['retired', 'LIVE', '']) {
      const { status, body } = await target(stage);
      expect(status).toBe(400);
      expect(body.errors[0].detail).toContain('monolith, replicate, shadow, canary, live');
    }
    expect(await rollback({ to: 'live' })).toMatchObject({ status: 409, body: { code: 'STEP_REFUSED' } });
    expect(await target('canary', { percent: 101 })).toMatchObject({ status: 400 });
    expect(await control.status('inventory')).toMatchObject({ stage: 'monolith', target: 'monolith', blocked: null });
  });

  it('when there is no database for its service', async () => {
    const missing = new URL(at.service.adminUrl);
    missing.pathname = '/banyan_nowhere';
    await restart({ INVENTORY_SERVICE_DATABASE_URL: missing.href });
    await force('live');
    const status = await blocked(/database "banyan_nowhere" does not exist\. It is tried again/);
    expect(status.stage).toBe('monolith');
    expect(control.runtime.wanted).toEqual([]);
    await rollback();
    await eventually(async () => (await control.status('inventory')).blocked === null);
  });

  it('when its service never becomes ready', async () => {
    control.runtime.ill.set('service inventory', 'no free port from 3101 on');
    await force('live');
    const status = await blocked('The service does not become ready: no free port from 3101 on');
    expect(status).toMatchObject({ stage: 'monolith', doing: 'starting the service' });
    expect(control.streams.calls).toEqual([]);
    control.runtime.ill.clear();
    control.runtime.changed();
    await control.reaches('inventory', 'live');
  });

  it('when its rows cannot be copied', async () => {
    control.streams.preflightProblem = 'The mapping of inventory.stock_item names no column on_hand. Mend the mapping';
    await force('live');
    expect((await blocked('names no column on_hand')).stage).toBe('monolith');
  });

  it('when the database of another installation is in the way', async () => {
    await force('replicate');
    await control.reaches('inventory', 'replicate');
    await rollback();
    await control.reaches('inventory', 'monolith');
    await eventually(() => control.runtime.wanted.length === 0);
    await at.service.admin('update inventory.banyan_owner set epoch = 7');
    await force('live');
    expect((await blocked('of another installation')).stage).toBe('monolith');
  });
});

describe('A hand-over', () => {
  it('that nobody finishes is called off, and tried again', async () => {
    await force('canary');
    await control.reaches('inventory', 'canary');
    control.streams.bridgeAway = true;
    // The next try waits until the first has been looked at.
    const again = Promise.withResolvers<void>();
    const prepare = control.streams.prepare.bind(control.streams);
    let tries = 0;
    control.streams.prepare = async (...way) => {
      tries += 1;
      if (tries > 1) await again.promise;
      await prepare(...way);
    };
    await force('live');
    const status = await blocked('The hand-over was called off');
    expect(status).toMatchObject({ stage: 'canary', owner: 'monolith', epoch: 3 });
    expect(await owners()).toMatchObject({ monolith: { open: true, epoch: 3 }, service: { open: false } });
    control.streams.bridgeAway = false;
    again.resolve();
    expect(await control.reaches('inventory', 'live')).toMatchObject({ epoch: 4 });
  });

  it('that another control plane began is brought to its end', async () => {
    await force('canary');
    await control.reaches('inventory', 'canary');
    await target('live', { force: true });
    await control.reaches('inventory', 'live');
    // As if the one before had died behind the closing, with the bridge away.
    control.streams.bridgeAway = true;
    await control.ask('POST', '/control/contexts/inventory/rollback', { to: 'canary' });
    await eventually(async () => !(await owners()).service.open);
    await restart();
    await control.reaches('inventory', 'canary');
    const { monolith, service } = await owners();
    expect(monolith.open).not.toBe(service.open);
  });

  it('that has happened while no control plane was there is found', async () => {
    await force('canary');
    await control.reaches('inventory', 'canary');
    await control.ask('POST', '/control/contexts/inventory/freeze', { frozen: true });
    await control.streams.prepare('inventory', 'service', null);
    await at.monolith.admin(`select inventory.banyan_close(1, 'service')`);
    const live = await control.reaches('inventory', 'live');
    expect(live.transitions[0]).toMatchObject({
      actor: 'control-plane',
      reason: 'the service was found to be the owner',
    });
  });
});

describe('A copy that is lost', () => {
  it('takes the context back to replicate, and is made anew', async () => {
    await force('canary');
    await control.reaches('inventory', 'canary');
    const stream = control.streams.streams.get('inventory monolith')!;
    stream.kind = 'lost';
    stream.problem = 'the replication slot is gone from the source';
    const status = await eventually(async () => {
      const now = await control.status('inventory');
      return now.transitions.some(({ to, reason }) => to === 'replicate' && reason.includes('slot is gone')) && now;
    });
    expect(status.owner).toBe('monolith');
    await eventually(
      () => control.streams.calls.filter((call) => call === 'prepare monolith with backfill').length === 2,
    );
    await control.reaches('inventory', 'shadow'); // and on from there: the target has not changed
  });

  it('behind a live service is made anew from there, and only then there is a way back', async () => {
    await force('live');
    await control.reaches('inventory', 'live');
    await eventually(() => control.streams.streams.size === 1);
    control.streams.streams.get('inventory service')!.kind = 'lost';
    await eventually(() => control.streams.calls.at(-1) === 'prepare service with backfill');
    expect((await control.status('inventory')).stage).toBe('live');
    control.streams.streams.get('inventory service')!.copy = { percent: 40, rows: 4, done: false };
    await rollback();
    expect(await blocked('not all copied')).toMatchObject({ stage: 'live', doing: 'copying rows (40 %)' });
    control.streams.streams.get('inventory service')!.copy = { percent: 100, rows: 10, done: true };
    await control.reaches('inventory', 'monolith');
  });
});

describe('The control plane', () => {
  it('is for operators, and its routing for routers', async () => {
    expect((await control.ask('GET', '/control/contexts', undefined, '')).status).toBe(401);
    expect((await control.ask('GET', '/control/contexts', undefined, 'wrong')).status).toBe(401);
    expect((await control.ask('GET', '/control/contexts', undefined, CLIENT)).status).toBe(403);
    expect((await control.ask('GET', '/control/routing', undefined, 'wrong')).status).toBe(401);
    expect((await control.ask('GET', '/control/contexts')).body.items).toHaveLength(7);
  });

  it('is one, even where two are started: the other stands by, and takes over', async () => {
    await force('replicate');
    await control.reaches('inventory', 'replicate');
    const first: Routing[] = [];
    const stream = await routingStream(control.url, CLIENT, (routing) => first.push(routing));
    const other = await startControlPlane(at);
    try {
      expect(await other.ask('GET', '/control/contexts')).toMatchObject({ status: 503, body: { code: 'UNAVAILABLE' } });
      expect(other.runtime.wanted).toEqual([]);
      for (const [key, state] of control.streams.streams) other.streams.streams.set(key, state);
      stream.close();
      await control.stop();
      await eventually(async () => (await other.ask('GET', '/control/contexts/inventory')).status === 200);
      expect(await other.status('inventory')).toMatchObject({ stage: 'replicate', target: 'replicate' });
      const second: Routing[] = [];
      const again = await routingStream(other.url, CLIENT, (routing) => second.push(routing));
      await eventually(() => second.length > 0);
      expect(second[0]!.revision).toBeGreaterThan(first.at(-1)!.revision);
      again.close();
    } finally {
      control = other;
    }
  });

  it('keeps its audit log as it is', async () => {
    await force('replicate');
    await control.reaches('inventory', 'replicate');
    for (const text of ['delete from control.audit', "update control.audit set actor = 'x'", 'truncate control.audit'])
      await expect(at.monolith.admin(text)).rejects.toMatchObject({ code: '42501' });
  });
});
