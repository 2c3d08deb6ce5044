import { randomUUID } from 'node:crypto';
import { newId } from '@banyan/kernel';
import { rpcToken } from '@banyan/platform/auth';
import { eventually, startNats, testDatabase, freePort } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Envelope, EventEnvelope, GivenBack } from './envelope.js';
import { NatsPeers } from './nats-rpc.js';
import type { RemoteTransport } from './placement.js';
import { Receiver } from './receiver.js';
import { TcpPeers } from './tcp.js';
import { callOf, createToyTables, holdNext, natsTo, opened, startToy, toyConfig } from './toy.spec-support.js';
import { listenAt, nobodys, wireTo } from './wires.spec-support.js';

// The conformance suite of what leads to other processes. What holds for a call wherever it goes is in calls.spec.ts, for
// events in events.spec.ts; here is what a wire adds.

type Toy = Awaited<ReturnType<typeof startToy>>;

interface Wiring {
  /** One more process that listens. */
  listen(): Promise<Toy>;
  /** The way to it. */
  peer(token?: string): Promise<RemoteTransport>;
  /** A way to where nobody is. */
  toNobody(): Promise<RemoteTransport>;
  /** A way to somebody who never answers. */
  toSilence(): Promise<RemoteTransport>;
  /** A way that can be cut. */
  fragile(): Promise<{ peer: RemoteTransport; cut: () => void }>;
  close(): Promise<void>;
}

const closing: (() => unknown)[] = [];
const later = (close: () => unknown) => void closing.push(close);
const side = { context: 'inventory', side: 'monolith', addresses: [] } as const;
const token = rpcToken(toyConfig);
const test = testDatabase({ contexts: ['inventory', 'orders'] });
beforeAll(() => createToyTables(test));

async function tcp(): Promise<Wiring> {
  const rpcPort = await freePort();
  const to = (port: number, shown = token) => {
    const peers = new TcpPeers(shown);
    later(() => peers.close());
    return peers.to({ ...side, addresses: [{ host: '127.0.0.1', port }] });
  };
  return {
    listen: () => startToy(test, { rpcPort }),
    peer: async (shown) => opened(to(rpcPort, shown)),
    toNobody: async () => to(nobodys[0]),
    toSilence: async () => {
      const { port, close } = await listenAt(() => {});
      later(close);
      return to(port);
    },
    fragile: async () => {
      const wire = await wireTo(rpcPort);
      later(wire.close);
      return { peer: await opened(to(wire.port)), cut: wire.cut };
    },
    close: () => Promise.resolve(),
  };
}

async function nats(): Promise<Wiring> {
  const server = await startNats({ config: 'max_payload: 16MB' });
  const peersAt = async (port: number, shown = token) => {
    const nats = await natsTo(`nats://127.0.0.1:${port}`);
    later(() => nats.close());
    return { nats, peers: new NatsPeers(nats, shown) };
  };
  return {
    async listen() {
      const nats = await natsTo(server.url);
      const toy = await startToy(test, { nats });
      return { ...toy, close: () => toy.close().then(() => nats.close()) };
    },
    peer: async (shown) => (await peersAt(server.port, shown)).peers.to(side),
    toNobody: async () => (await peersAt(server.port)).peers.to({ ...side, side: 'service' }),
    toSilence: async () => {
      const { nats, peers } = await peersAt(server.port);
      nats.connection.subscribe('banyan.call.service.>');
      await nats.connection.flush();
      return peers.to({ ...side, side: 'service' });
    },
    fragile: async () => {
      const wire = await wireTo(server.port);
      later(wire.close);
      return { peer: (await peersAt(wire.port)).peers.to(side), cut: wire.cut };
    },
    close: () => server.stop(),
  };
}

describe.each([
  ['TCP', tcp],
  ['NATS', nats],
])('over %s, a process', (_name, open) => {
  let wiring: Wiring;
  let toy: Toy;
  let peer: RemoteTransport;
  beforeAll(async () => {
    wiring = await open();
    toy = await wiring.listen();
  });
  afterAll(async () => {
    await toy.close();
    await wiring.close();
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });

  const add = (name: string, changes: Partial<Envelope> = {}) => callOf('add', { name, by: 1 }, changes);
  const counter = () => `c-${randomUUID()}`;
  const written = (name: string) => test.admin('select 1 from inventory.toy where name = $1', [name]);

  it.each([
    ['of another system', 'another token of the same kind'],
    ['that has no token', ''],
  ])('lets in none %s: nothing runs, and it is told why', async (_, shown) => {
    const name = counter();
    peer = await wiring.peer(shown);
    const reply = await peer.call(add(name));
    expect(reply).toMatchObject({ ok: false, error: { code: 'UNAUTHENTICATED', kind: 'unauthenticated' } });
    expect(await written(name)).toEqual([]);
    await expect(peer.giveBack('inventory', [])).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  it('that is not there has run nothing, and that is known at once', async () => {
    const started = performance.now();
    const refused = await (await wiring.toNobody()).call(add(counter()));
    expect(refused).toMatchObject({ ok: false, error: { code: 'CONTEXT_UNREACHABLE', kind: 'unavailable' } });
    expect(performance.now() - started).toBeLessThan(7_000);
  });

  it('may have run what the connection broke off', async () => {
    const { peer, cut } = await wiring.fragile();
    expect((await peer.call(add(counter()))).ok).toBe(true);
    const held = holdNext(toy.bus);
    try {
      const lost = peer.call(callOf('sleep', { ms: 0 }));
      await held.there;
      const brokenAt = performance.now();
      cut();
      expect(await lost).toMatchObject({ ok: false, error: { code: 'UPSTREAM_UNAVAILABLE', kind: 'unavailable' } });
      // One that falls silent is given up after 5 s.
      expect(performance.now() - brokenAt).toBeLessThan(4_500);
    } finally {
      held.letGo();
    }
    // It comes back by itself.
    await eventually(async () => (await peer.call(add(counter()))).ok);
  });

  it('that hangs is given up at the deadline, and at an earlier time that the caller names', async () => {
    const hung = await wiring.toSilence();
    // Without a connection, that would be the answer.
    await eventually(async () => {
      const reply = await hung.call(add(counter()), Date.now() + 500);
      return !reply.ok && reply.error.code === 'DEADLINE_EXCEEDED';
    });
    const took = async (envelope: Envelope, until?: number) => {
      const started = performance.now();
      const reply = await hung.call(envelope, until);
      expect(reply).toMatchObject({ ok: false, error: { code: 'DEADLINE_EXCEEDED' } });
      return performance.now() - started;
    };
    expect(await took(add(counter(), { deadline: Date.now() + 150 }))).toBeLessThan(7_000);
    expect(await took(add(counter()), Date.now() + 150)).toBeLessThan(7_000);
  });

  it('is reached again when it has died and come back; until then nothing runs', async () => {
    peer = await wiring.peer();
    expect((await peer.call(add(counter()))).ok).toBe(true);
    await toy.close();
    try {
      // The first may find the connection that it had only just broken.
      await eventually(async () => {
        const reply = await peer.call(add(counter()));
        return !reply.ok && reply.error.code === 'CONTEXT_UNREACHABLE';
      });
    } finally {
      toy = await wiring.listen();
    }
    await eventually(async () => (await peer.call(add(counter()))).ok);
  });

  it('ends what is running when it stops', async () => {
    peer = await wiring.peer();
    const held = holdNext(toy.bus);
    const slow = peer.call(callOf('sleep', { ms: 300 }));
    await held.there;
    const closed = toy.close();
    held.letGo();
    await closed;
    toy = await wiring.listen();
    expect((await slow).ok).toBe(true);
  });

  it('takes and gives large messages, and one that is too large is refused without harm to others', async () => {
    peer = await wiring.peer();
    const name = 'é'.repeat(3_000_000);
    const reply = await peer.call(callOf('valueOf', { name }));
    expect(reply).toMatchObject({ ok: false, error: { code: 'COUNTER_UNKNOWN' } });
    expect(!reply.ok && reply.error.message).toHaveLength(name.length + 'No counter '.length);
    const slow = peer.call(callOf('sleep', { ms: 200 }));
    const refused = await peer.call(callOf('valueOf', { name: 'x'.repeat(17_000_000) }));
    expect(refused).toMatchObject({ ok: false, error: { kind: 'too_large' } });
    const unsent = await peer.call(callOf('long', { length: 17_000_000 }));
    expect(unsent).toMatchObject({
      ok: false,
      error: { code: 'INTERNAL', message: 'The answer is too long to be sent' },
    });
    expect((await slow).ok).toBe(true);
  });

  it('takes events to its inbox, and gives receipts', async () => {
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
    peer = await wiring.peer();
    const first = newId();
    expect(await peer.deliver('orders', [event(first, null)])).toEqual([{ id: first, verdict: 'applied' }]);
    expect(await peer.deliver('orders', [event(first, null)])).toEqual([{ id: first, verdict: 'duplicate' }]);
    const orphan = newId();
    expect(await peer.deliver('orders', [event(orphan, newId())])).toEqual([{ id: orphan, verdict: 'gap' }]);
    const nonsense = { ...event(newId(), null), id: 7 } as unknown as EventEnvelope;
    await expect(peer.deliver('orders', [nonsense])).rejects.toMatchObject({ code: 'INPUT_INVALID' });
  });

  it('takes back events that it has published, or says why not', async () => {
    const taken: GivenBack[][] = [];
    toy.app.get(Receiver).takesBack('inventory', async (back) => void taken.push(back));
    peer = await wiring.peer();
    const back: GivenBack = { eventId: newId(), subscriber: 'orders', state: 'parked', attempts: 5, error: 'poison' };
    await peer.giveBack('inventory', [back]);
    expect(taken).toEqual([[back]]);
    const nonsense = { ...back, state: 'gone' } as unknown as GivenBack;
    await expect(peer.giveBack('inventory', [nonsense])).rejects.toMatchObject({ code: 'INPUT_INVALID' });
  });

  it('goes on with the caller’s trace, and tells what a read needs to see the write', async () => {
    const name = counter();
    const trace = randomUUID().replaceAll('-', '');
    const reply = await (await wiring.peer()).call(add(name, { traceparent: `00-${trace}-00f067aa0ba902b7-01` }));
    expect(reply).toMatchObject({ ok: true, meta: { token: { side: 'monolith', epoch: 1 } } });
    const [row] = await test.admin('select traceparent from inventory.outbox where aggregate = $1', [
      `counter/${name}`,
    ]);
    expect(row!.traceparent).toContain(trace);
  });
});
