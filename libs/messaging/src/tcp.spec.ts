import { randomUUID } from 'node:crypto';
import { type AddressInfo, type Socket, connect, createServer } from 'node:net';
import { newId } from '@banyan/kernel';
import { eventually, testDatabase } from '@banyan/testing';
import { rpcToken } from '@banyan/platform/auth';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { Envelope, EventEnvelope } from './envelope.js';
import { TcpPeers, type TcpTransport } from './tcp.js';
import { alice, createToyTables, startToy, toyConfig } from './toy.spec-support.js';

// What holds for a call wherever it goes is in calls.spec.ts, for events in events.spec.ts; here is what a wire adds.
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
function peer(port = toy.port!, token = rpcToken(toyConfig)): TcpTransport {
  const peers = new TcpPeers(token);
  closing.push(() => peers.close());
  return peers.to({ host: '127.0.0.1', port });
}
const call = (operation: string, input: unknown, changes: Partial<Envelope> = {}): Envelope => ({
  id: newId(),
  context: 'inventory',
  operation,
  input,
  actor: alice,
  at: Date.now(),
  deadline: Date.now() + 10_000,
  ...changes,
});
const add = (name: string, changes: Partial<Envelope> = {}) => call('add', { name, by: 1 }, changes);
const counter = () => `c-${randomUUID()}`;
const written = (name: string) => test.admin('select 1 from inventory.toy where name = $1', [name]);

/** Something at a port that is none of ours. */
async function listener(onSocket: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}
/** A wire to the toy that counts its connections and can be cut. */
async function wire(): Promise<{ port: number; connections: number; cut: () => void }> {
  const ends: Socket[] = [];
  const told = { port: 0, connections: 0, cut: () => ends.forEach((end) => end.resetAndDestroy()) };
  told.port = await listener((near) => {
    told.connections++;
    const far = connect(toy.port!, '127.0.0.1').on('error', () => {});
    ends.push(near, far);
    near.pipe(far).pipe(near);
  });
  return told;
}

it.each([
  ['of another system', 'another token of the same kind'],
  ['that has no token', ''],
])('lets in no process %s: nothing runs, and it is told why', async (_, token) => {
  const name = counter();
  const reply = await peer(toy.port, token).call(add(name));
  expect(reply).toMatchObject({ ok: false, error: { code: 'UNAUTHENTICATED', kind: 'unauthenticated' } });
  expect(await written(name)).toEqual([]);
  await expect(peer(toy.port, token).deliver('orders', [])).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
});

it('uses one connection for all calls, and makes a new one when it broke', async () => {
  const line = await wire();
  const one = peer(line.port);
  const name = counter();
  const replies = await Promise.all(Array.from({ length: 30 }, () => one.call(add(name))));
  expect(replies.filter(({ ok }) => ok)).toHaveLength(30);
  expect(line.connections).toBe(1);
  line.cut();
  await eventually(async () => (await one.call(add(name))).ok);
  expect(line.connections).toBe(2);
});

it('tells apart what never got there from what may have run', async () => {
  const dead = await listener(() => {});
  closing.splice(0).forEach((close) => void close());
  const started = performance.now();
  const refused = await peer(dead).call(add(counter()));
  expect(refused).toMatchObject({ ok: false, error: { code: 'CONTEXT_UNREACHABLE', kind: 'unavailable' } });
  expect(performance.now() - started).toBeLessThan(1_000);

  const line = await wire();
  const lost = peer(line.port).call(call('sleep', { ms: 5_000 }));
  await eventually(() => line.connections === 1);
  await new Promise((resolve) => setImmediate(resolve));
  line.cut();
  expect(await lost).toMatchObject({ ok: false, error: { code: 'UPSTREAM_UNAVAILABLE', kind: 'unavailable' } });
});

it('ends at the deadline when the other side hangs, and at an earlier time that the caller names', async () => {
  const hung = peer(await listener(() => {}));
  const took = async (envelope: Envelope, until?: number) => {
    const started = performance.now();
    const reply = await hung.call(envelope, until);
    expect(reply).toMatchObject({ ok: false, error: { code: 'DEADLINE_EXCEEDED' } });
    return performance.now() - started;
  };
  expect(await took(add(counter(), { deadline: Date.now() + 150 }))).toBeLessThan(2_000);
  expect(await took(add(counter()), Date.now() + 150)).toBeLessThan(2_000);
});

it('reaches a process again that has died and come back at its port', async () => {
  const first = await startToy(test, { rpcPort: 0 });
  const one = peer(first.port);
  expect((await one.call(add(counter()))).ok).toBe(true);
  await first.close();
  // The first may find the connection that it had only just broken.
  await eventually(async () => {
    const reply = await one.call(add(counter()));
    return !reply.ok && reply.error.code === 'CONTEXT_UNREACHABLE';
  });
  const second = await startToy(test, { rpcPort: first.port });
  closing.push(second.close);
  expect((await one.call(add(counter()))).ok).toBe(true);
});

it('lets what is running end when its process stops', async () => {
  const stopping = await startToy(test, { rpcPort: 0 });
  const slow = peer(stopping.port).call(call('sleep', { ms: 300 }));
  await new Promise((resolve) => setTimeout(resolve, 100));
  await stopping.close();
  expect((await slow).ok).toBe(true);
});

it('carries large messages both ways, and refuses one that is too large without harm to others', async () => {
  const one = peer();
  const name = 'é'.repeat(3_000_000);
  const reply = await one.call(call('valueOf', { name }));
  expect(reply).toMatchObject({ ok: false, error: { code: 'COUNTER_UNKNOWN' } });
  expect(!reply.ok && reply.error.message).toHaveLength(name.length + 'No counter '.length);
  const slow = one.call(call('sleep', { ms: 200 }));
  const refused = await one.call(call('valueOf', { name: 'x'.repeat(17_000_000) }));
  expect(refused).toMatchObject({ ok: false, error: { kind: 'too_large' } });
  expect((await slow).ok).toBe(true);
});

it('survives what is no message of ours', async () => {
  const line = connect(toy.port!, '127.0.0.1');
  closing.push(() => line.destroy());
  for (const text of ['GET / HTTP/1.1\r\n\r\n#', '99999999#{}', '2#{}', '4#null', 'NaN#'])
    await new Promise((resolve) => {
      const socket = connect(toy.port!, '127.0.0.1', () => socket.write(text, () => socket.destroy()));
      socket.on('close', resolve).on('error', () => {});
    });
  expect((await peer().call(add(counter()))).ok).toBe(true);
});

it('hands events to the inbox and brings its receipts back', async () => {
  const name = counter();
  const event = (id: string, previous: string | null): EventEnvelope => ({
    specversion: '1.0',
    id,
    source: '/banyan/inventory',
    type: 'inventory.Added',
    subject: `counter/${name}`,
    time: new Date().toISOString(),
    datacontenttype: 'application/json',
    data: { name, by: 1, value: 1 },
    aggregateversion: 1,
    previous,
  });
  const one = peer();
  const first = newId();
  expect(await one.deliver('orders', [event(first, null)])).toEqual([{ id: first, verdict: 'applied' }]);
  expect(await one.deliver('orders', [event(first, null)])).toEqual([{ id: first, verdict: 'duplicate' }]);
  const orphan = newId();
  expect(await one.deliver('orders', [event(orphan, newId())])).toEqual([{ id: orphan, verdict: 'gap' }]);
  await expect(one.deliver('payments', [])).rejects.toMatchObject({ code: 'CONTEXT_UNKNOWN', kind: 'unavailable' });
  const nonsense = { ...event(newId(), null), id: 7 } as unknown as EventEnvelope;
  await expect(one.deliver('orders', [nonsense])).rejects.toMatchObject({ code: 'INPUT_INVALID' });
});

it('goes on with the caller’s trace, and tells what a read needs to see the write', async () => {
  const name = counter();
  const trace = randomUUID().replaceAll('-', '');
  const reply = await peer().call(add(name, { traceparent: `00-${trace}-00f067aa0ba902b7-01` }));
  expect(reply).toMatchObject({ ok: true, meta: { token: { side: 'monolith', epoch: 1 } } });
  const [row] = await test.admin('select traceparent from inventory.outbox where aggregate = $1', [`counter/${name}`]);
  expect(row!.traceparent).toContain(trace);
});
