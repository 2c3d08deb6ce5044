import { setTimeout as sleep } from 'node:timers/promises';
import type { Routing } from '@banyan/extraction';
import { eventually, freePort } from '@banyan/testing';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { ControlPlane } from './control-plane.service.js';
import {
  CLIENT,
  type Places,
  type SpecControlPlane,
  places,
  routingStream,
  startControlPlane,
} from './control-plane.spec-support.js';

let at: Places;
const running: SpecControlPlane[] = [];
beforeEach(async () => {
  at = await places();
});
afterEach(async () => {
  for (const each of running.splice(0)) await each.stop();
  await at.drop();
});

/** A second one that knows the streams of the first, as it would find them in the databases. */
async function start(like?: SpecControlPlane, settings: Record<string, string> = {}): Promise<SpecControlPlane> {
  const control = await startControlPlane(at, settings, ({ streams }) => {
    for (const [key, state] of like?.streams.streams ?? []) streams.streams.set(key, state);
  });
  running.push(control);
  return control;
}
const stop = (control: SpecControlPlane) => running.splice(running.indexOf(control), 1)[0]!.stop();
const live = { stage: 'live', force: true };

describe('Of two control planes', () => {
  it(
    'one acts; the other says so, wants nothing, and takes over with what is under way',
    { timeout: 120_000 },
    async () => {
      const first = await start();
      await first.acts();
      await first.ask('POST', '/control/contexts/inventory/target', { stage: 'replicate', force: true });
      await first.reaches('inventory', 'replicate');
      const second = await start(first);
      for (const path of ['/control/contexts', '/control/routing', '/control/stream'])
        expect(await second.ask('GET', path)).toMatchObject({ status: 503, body: { detail: expect.any(String) } });
      expect(second.runtime.wanted).toEqual([]);
      // The flags are known to both.
      const features = '/api/client/features';
      await eventually(async () => {
        const [one, other] = [await first.ask('GET', features), await second.ask('GET', features)];
        expect(other).toEqual(one);
        return one.status === 200;
      });

      let last: Routing | undefined;
      const stream = await routingStream(first.url, CLIENT, (routing) => (last = routing));
      await first.ask('POST', '/control/contexts/inventory/target', live);
      await eventually(() => last?.contexts['inventory']?.stage !== 'replicate');
      await stop(first);
      stream.close();

      await second.acts();
      expect((await second.ask('GET', '/control/contexts')).status).toBe(200);
      expect(await second.reaches('inventory', 'live')).toMatchObject({ owner: 'service', epoch: 2 });
      expect(second.runtime.wanted.map(({ role }) => role).sort()).toEqual(['bridge', 'service']);
      const before = last!.revision;
      const again = await routingStream(second.url, CLIENT, (routing) => (last = routing));
      expect(last!.revision).toBeGreaterThan(before);
      expect(last!.contexts['inventory']).toMatchObject({ stage: 'live', owner: 'service', epoch: 2 });
      again.close();
    },
  );

  it('each takes orders, where they know each other', { timeout: 120_000 }, async () => {
    const ports = [await freePort(), await freePort()];
    const CONTROL_URL = ports.map((port) => `http://127.0.0.1:${port}`).join();
    const first = await start(undefined, { CONTROL_URL, CONTROL_PORT: String(ports[0]) });
    await first.acts();
    const second = await start(undefined, { CONTROL_URL, CONTROL_PORT: String(ports[1]) });
    const target = '/control/contexts/inventory/target';
    expect(await second.ask('POST', target, { stage: 'replicate' })).toMatchObject({
      status: 202,
      body: { target: 'replicate' },
    });
    await first.reaches('inventory', 'replicate');
    expect(await second.status('inventory')).toMatchObject({ stage: 'replicate' });
    expect((await second.ask('POST', target, { stage: 'live' }, 'wrong')).status).toBe(401);
    expect((await second.ask('POST', target, { stage: 'live' }, CLIENT)).status).toBe(403);
    expect((await second.ask('POST', target, { stage: 'nowhere' })).status).toBe(400);
    expect((await second.ask('GET', '/control/contexts/nosuch')).status).toBe(404);
    expect(second.runtime.wanted).toEqual([]);

    const heard: Routing[] = [];
    const stream = await routingStream(second.url, CLIENT, (routing) => heard.push(routing));
    expect(heard.at(-1)!.contexts['inventory']).toMatchObject({ stage: 'replicate' });
    stream.close();
    for (const [key, state] of first.streams.streams) second.streams.streams.set(key, state);
    await stop(first);
    await eventually(async () => (await second.ask('POST', target, { stage: 'monolith' })).status === 202);
    await second.reaches('inventory', 'monolith');
  });

  it('the one that stands by is ready only if it can pass on what it is asked', { timeout: 120_000 }, async () => {
    const ready = ({ app }: SpecControlPlane) => {
      try {
        app.get(ControlPlane).mustServe();
        return true;
      } catch {
        return false;
      }
    };
    const first = await start();
    await first.acts();
    // One address may stand for all of them.
    const alone = await start(undefined, { CONTROL_URL: first.url });
    const related = await start(undefined, { CONTROL_URL: `${first.url},http://127.0.0.1:1` });
    // It stands by from when it has seen that another one acts.
    await eventually(() => expect([first, alone, related].map(ready)).toEqual([true, false, true]));
    for (const each of [alone, related])
      expect((await each.ask('GET', '/control/contexts')).status).toBe(ready(each) ? 200 : 503);
    await stop(related);
    await stop(first);
    await eventually(() => ready(alone));
  });

  it('there is never more than one that acts, however often they change', { timeout: 180_000 }, async () => {
    const all: SpecControlPlane[] = [];
    const acting = () => all.filter(({ app }) => app.get(ControlPlane).leading);
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, acting().length)), 1);
    onTestFinished(() => clearInterval(watch));
    all.push(await start(), await start());
    for (const context of ['inventory', 'orders', 'catalog']) {
      const one = await eventually(() => acting()[0]);
      // It is in the middle of something, and takes its time over it.
      let begun = false;
      one.streams.prepare = () => ((begun = true), sleep(1_000));
      await one.ask('POST', `/control/contexts/${context}/target`, { stage: 'replicate', force: true });
      await eventually(() => begun);
      await stop(one);
      await eventually(() => acting().length > 0);
      all.push(await start());
    }
    expect(most).toBe(1);
  });
});
