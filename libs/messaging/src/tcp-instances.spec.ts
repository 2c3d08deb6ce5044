import { randomUUID } from 'node:crypto';
import { rpcToken } from '@banyan/platform/auth';
import { eventually, testDatabase, freePort } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { RemoteTransport } from './placement.js';
import { TcpPeers } from './tcp.js';
import { callOf, createToyTables, holdNext, opened, startToy, toyConfig } from './toy.spec-support.js';
import { nobodys, wireTo } from './wires.spec-support.js';

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
/** The way to the instances at these ports; `to` tells of others. `open` resolves when all have their connections. */
function instances(...ports: number[]) {
  const peers = new TcpPeers(rpcToken(toyConfig));
  closing.push(() => peers.close());
  const ways =
    (context: string) =>
    (...now: number[]) =>
      peers.to({ context, side: 'monolith', addresses: now.map((port) => ({ host: '127.0.0.1', port })) });
  const to = ways('inventory');
  // One after the other, beside the way to all of them: two contexts that are at one place share its connection.
  const open = async () => {
    for (const port of ports) await opened(ways('orders')(port));
  };
  return { to, all: to(...ports), open };
}

describe('Several instances of one side', () => {
  it('take turns', async () => {
    const lines = await Promise.all([wire(), wire(), wire()]);
    const { all, open } = instances(...lines.map(({ port }) => port));
    await open();
    const taken: number[] = [];
    for (let i = 0; i < 3; i++) {
      const before = lines.map(({ sent }) => sent);
      expect(await ok(all)).toBe(true);
      taken.push(lines.findIndex(({ sent }, at) => sent > before[at]!));
    }
    expect(taken.sort()).toEqual([0, 1, 2]);
    expect(lines.map(({ connections }) => connections)).toEqual([1, 1, 1]);
  });

  it('what never got to one of them goes to the next, and one that is back is found', async () => {
    const second = await startToy(test, { rpcPort: await freePort() });
    const { all, open } = instances(toy.port!, second.port!);
    await open();
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
    const { all } = instances(...nobodys);
    expect(await all.call(add())).toMatchObject({ ok: false, error: { code: 'CONTEXT_UNREACHABLE' } });
    await expect(all.deliver('orders', [])).rejects.toMatchObject({ code: 'CONTEXT_UNREACHABLE' });
  });

  it('one that broke in the middle may have run it: it is not sent to another', async () => {
    const [line, other] = [await wire(), await wire()];
    const { all, open } = instances(other.port, line.port);
    await open();
    const held = holdNext(toy.bus);
    try {
      const lost = all.call(callOf('sleep', { ms: 0 }));
      await held.there;
      line.cut();
      other.cut();
      expect(await lost).toMatchObject({ ok: false, error: { code: 'UPSTREAM_UNAVAILABLE' } });
      expect(held.arrived).toBe(1);
      expect([line.connections, other.connections]).toEqual([1, 1]);
    } finally {
      held.letGo();
    }
  });

  it('come and go: what runs at one that is left is still answered, then its connection is closed', async () => {
    const [line, other] = [await wire(), await wire()];
    const { to, all } = instances(line.port);
    await opened(all);
    const held = holdNext(toy.bus);
    const slow = all.call(callOf('sleep', { ms: 0 }));
    await held.there;
    const moved = to(other.port);
    try {
      await eventually(() => ok(moved));
    } finally {
      held.letGo();
    }
    expect((await slow).ok).toBe(true);
    expect([line.connections, other.connections]).toEqual([1, 1]);
    await eventually(() => line.open === 0);
    expect(other.open).toBe(1);
    expect(to(other.port)).toBe(moved);
  });
});
