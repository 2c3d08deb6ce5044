import type { ProxyOptions } from '@banyan/proxy';
import { eventually } from '@banyan/testing';
import { describe, expect, it } from 'vitest';
import { Recorder } from './recorder.js';
import { ToyRouting, startToy } from './toy.js';

const answer = (status: string, ...headers: string[]): string =>
  [`HTTP/1.1 ${status}`, 'content-length: 2', ...headers, '', 'ok'].join('\r\n');

const session = { headers: { 'banyan-session': 'ann' } };

/** A proxy in which something throws that never does, once a test has set it to. */
async function faultyProxy(shared?: ProxyOptions['shared']) {
  const fault: { on: boolean | string } = { on: false };
  const monolith = await Recorder.start(() => answer('200 OK'));
  const service = await Recorder.start(() => answer('200 OK'));
  const routing = ToyRouting.of(monolith.url, {
    inventory: { stage: 'canary', at: service.url },
    catalog: { stage: 'canary', at: service.url },
    orders: { stage: 'replicate', at: service.url },
  });
  const canary = {
    isService: (context: string) => {
      if (fault.on === true || fault.on === context) throw new Error('this was not foreseen');
      return true;
    },
    start: () => Promise.resolve(),
    stop: () => {},
  };
  const { url } = await startToy(routing, { canary, shared, limits: { holdMs: 600 } });
  const ask = async (path: string, init?: RequestInit) => {
    const response = await fetch(url + path, { ...init, signal: AbortSignal.timeout(20_000) });
    return { status: response.status, body: await response.text() };
  };
  return { fault, monolith, service, routing, ask };
}
const write: RequestInit = { method: 'POST', body: '{}' };
const broken = { status: 500, body: expect.stringContaining('"INTERNAL"') };

describe('what nobody foresaw is one request with a 500, and nothing to the others', () => {
  it('when its body has come', async () => {
    const { fault, ask } = await faultyProxy();
    fault.on = true;
    expect(await ask('/v1/orders', write)).toMatchObject(broken);
    fault.on = false;
    expect(await ask('/v1/orders', write)).toMatchObject({ status: 200 });
  });

  it('when the other proxies have said what they know, or could not even be asked', async () => {
    let asking = async (): Promise<Record<string, never>> => ({});
    const { fault, ask } = await faultyProxy({ tell: async () => {}, ask: () => asking() });
    fault.on = true;
    expect(await ask('/v1/stock/1', session)).toMatchObject(broken);
    fault.on = false;
    asking = () => Promise.reject(new Error('this never happens'));
    expect(await ask('/v1/stock/1', session)).toMatchObject(broken);
    asking = async () => ({});
    expect(await ask('/v1/stock/1', session)).toMatchObject({ status: 200 });
  });

  it('when it is to be sent to a candidate', async () => {
    const { fault, ask } = await faultyProxy();
    fault.on = 'catalog';
    expect(await ask('/v1/stock/1', session)).toMatchObject(broken);
    fault.on = false;
    expect(await ask('/v1/stock/1', session)).toMatchObject({ status: 200 });
  });

  it('when the other proxies could not be told', async () => {
    let telling = (): Promise<void> => Promise.reject(new Error('this never happens'));
    const { monolith, ask } = await faultyProxy({ tell: () => telling(), ask: async () => ({}) });
    monolith.answer = () => answer('200 OK', 'banyan-consistency: orders=monolith:1:0/1');
    expect(await ask('/v1/orders', { ...write, ...session })).toMatchObject(broken);
    telling = async () => {};
    expect(await ask('/v1/orders', { ...write, ...session })).toMatchObject({ status: 200 });
  });

  it('when an owner has been waited for: it came, or it did not', async () => {
    const { fault, routing, ask } = await faultyProxy();
    for (const comes of [true, false]) {
      routing.push('orders', { holding: true });
      // It is on before anybody can have been waited for long enough, and nothing meets it before that.
      fault.on = true;
      const from = performance.now();
      const waiting = [ask('/v1/orders', write), ask('/v1/orders/1', { method: 'DELETE' })];
      await ask('/v1/stock/1');
      if (comes) routing.push('orders', { holding: false });
      expect(await Promise.all(waiting)).toMatchObject([broken, broken]);
      if (!comes) expect(performance.now() - from).toBeGreaterThan(350);
      fault.on = false;
    }
    routing.push('orders', { holding: false });
    expect(await ask('/v1/orders', write)).toMatchObject({ status: 200 });
  });

  it('when a fence has refused it, and the owner is known already or not', async () => {
    const { fault, monolith, routing, ask } = await faultyProxy();
    for (const known of [true, false]) {
      monolith.answer = () => {
        fault.on = true;
        if (known) routing.push('orders', { owner: 'service', stage: 'live', epoch: 2 });
        return answer('503 Service Unavailable', 'banyan-fenced: orders');
      };
      expect(await ask('/v1/orders', write)).toMatchObject(broken);
      fault.on = false;
      routing.push('orders', { owner: 'monolith', stage: 'replicate', epoch: 3 });
    }
    monolith.answer = () => answer('200 OK');
    expect(await ask('/v1/orders', write)).toMatchObject({ status: 200 });
  });

  it('when its upstream has died', async () => {
    const { fault, monolith, ask } = await faultyProxy();
    monolith.answer = (_, socket) => {
      fault.on = true;
      socket.destroy();
      return undefined;
    };
    expect(await ask('/v1/orders')).toMatchObject(broken);
    fault.on = false;
    monolith.answer = () => answer('200 OK');
    await eventually(async () => (await ask('/v1/orders')).status === 200, { timeoutMs: 20_000 });
  });
});
