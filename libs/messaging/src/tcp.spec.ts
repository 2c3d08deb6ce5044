import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { newId } from '@banyan/kernel';
import { rpcToken } from '@banyan/platform/auth';
import { eventually, testDatabase } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { Envelope } from './envelope.js';
import type { RemoteTransport } from './placement.js';
import { TcpPeers } from './tcp.js';
import { alice, createToyTables, opened, startToy, toyConfig } from './toy.spec-support.js';
import { wireTo } from './wires.spec-support.js';

// What holds for every wire is in remote.spec.ts; here is what TCP itself can do wrong.
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
function peer(port = toy.port!): RemoteTransport {
  const peers = new TcpPeers(rpcToken(toyConfig));
  closing.push(() => peers.close());
  return peers.to({ context: 'inventory', side: 'monolith', addresses: [{ host: '127.0.0.1', port }] });
}
const add = (): Envelope => ({
  id: newId(),
  context: 'inventory',
  operation: 'add',
  input: { name: `c-${randomUUID()}`, by: 1 },
  actor: alice,
  at: Date.now(),
  deadline: Date.now() + 20_000,
});

it('uses one connection for all calls, and makes a new one when it broke', async () => {
  const line = await wireTo(toy.port!);
  closing.push(line.close);
  const one = peer(line.port);
  // All of them at the first connection, which may take longer than a call waits for it.
  await eventually(async () => {
    const replies = await Promise.all(Array.from({ length: 30 }, () => one.call(add())));
    return replies.every(({ ok }) => ok);
  });
  expect(line.connections).toBe(1);
  line.cut();
  await eventually(async () => (await one.call(add())).ok);
  expect(line.connections).toBe(2);
});

it('survives what is no message of ours', async () => {
  const line = connect(toy.port!, '127.0.0.1');
  closing.push(() => line.destroy());
  for (const text of ['GET / HTTP/1.1\r\n\r\n#', '99999999#{}', '2#{}', '4#null', 'NaN#'])
    await new Promise((resolve) => {
      const socket = connect(toy.port!, '127.0.0.1', () => socket.write(text, () => socket.destroy()));
      socket.on('close', resolve).on('error', () => {});
    });
  expect((await (await opened(peer())).call(add())).ok).toBe(true);
});
