import { randomUUID } from 'node:crypto';
import { rpcToken } from '@banyan/platform/auth';
import { eventually, testDatabase, freePort } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { RemoteTransport } from './placement.js';
import { TcpPeers } from './tcp.js';
import { callOf, createToyTables, startToy, toyConfig } from './toy.spec-support.js';
import { wireTo } from './wires.spec-support.js';

const test = testDatabase({ contexts: ['inventory', 'orders'] });
let toy: Awaited<ReturnType<typeof startToy>>;
beforeAll(async () => {
  await createToyTables(test);
  toy = await startToy(test, { rpcPort: 0 });
});
afterAll(() => toy.close());

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

const add = () => callOf('add', { name: `c-${randomUUID()}`, by: 1 });
const ok = async (via: RemoteTransport) => (await via.call(add())).ok;
const wire = async (port = toy.port!) => {
  const line = await wireTo(port);
  closing.push(line.close);
  return line;
};
/** The way to the instances at these ports; `to` tells of others. */
function instances(...ports: number[]) {
  const peers = new TcpPeers(rpcToken(toyConfig));
  closing.push(() => peers.close());
  const to = (...now: number[]) =>
    peers.to({ context: 'inventory', side: 'monolith', addresses: now.map((port) => ({ host: '127.0.0.1', port })) });
  return { to, all: to(...ports) };
}

describe('Several instances of one side', () => {
  it('take turns', async () => {
    const lines = await Promise.all([wire(), wire(), wire()]);
    const { all } = instances(...lines.map(({ port }) => port));
    for (let i = 0; i < 3; i++) expect(await ok(all)).toBe(true);
    expect(lines.map(({ connections }) => connections)).toEqual([1, 1, 1]);
  });

  it('what never got to one of them goes to the next, and one that is back is found', async () => {
    const second = await startToy(test, { rpcPort: 0 });
    const { all } = instances(toy.port!, second.port!);
    for (let i = 0; i < 4; i++) expect(await ok(all)).toBe(true);
    await second.close();
    // One may find the connection that was only just broken: then nobody knows, and it is not sent again.
    await eventually(async () => (await Promise.all([ok(all), ok(all), ok(all), ok(all)])).every(Boolean));
    const replies = await Promise.all(Array.from({ length: 40 }, () => all.call(add())));
    expect(replies.filter((reply) => !reply.ok)).toEqual([]);
    expect(await all.deliver('orders', [])).toEqual([]);

    const again = await startToy(test, { rpcPort: second.port });
    closing.push(again.close);
    let served = 0;
    const { handle } = again.bus.endpoint('inventory')!;
    again.bus.endpoint('inventory')!.handle = function (...given) {
      served++;
      return handle.apply(this, given);
    };
    await eventually(async () => (await ok(all)) && served > 0);
  });

  it('none of them there: it was not run', async () => {
    const { all } = instances(await freePort(), await freePort());
    expect(await all.call(add())).toMatchObject({ ok: false, error: { code: 'CONTEXT_UNREACHABLE' } });
    await expect(all.deliver('orders', [])).rejects.toMatchObject({ code: 'CONTEXT_UNREACHABLE' });
  });

  it('one that broke in the middle may have run it: it is not sent to another', async () => {
    const [line, other] = [await wire(), await wire()];
    const { all } = instances(other.port, line.port);
    const lost = all.call(callOf('sleep', { ms: 5_000 }));
    await eventually(() => line.connections + other.connections === 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    line.cut();
    other.cut();
    expect(await lost).toMatchObject({ ok: false, error: { code: 'UPSTREAM_UNAVAILABLE' } });
    expect(line.connections + other.connections).toBe(1);
  });

  it('come and go: what runs at one that is left is still answered, then its connection is closed', async () => {
    const [line, other] = [await wire(), await wire()];
    const { to, all } = instances(line.port);
    const slow = all.call(callOf('sleep', { ms: 300 }));
    await eventually(() => line.connections === 1);
    const moved = to(other.port);
    expect(await ok(moved)).toBe(true);
    expect((await slow).ok).toBe(true);
    expect([line.connections, other.connections]).toEqual([1, 1]);
    await eventually(() => line.open === 0);
    expect(other.open).toBe(1);
    expect(to(other.port)).toBe(moved);
  });
});
