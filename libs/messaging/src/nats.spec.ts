import { randomUUID } from 'node:crypto';
import { newId } from '@banyan/kernel';
import { rpcToken } from '@banyan/platform/auth';
import { rootLogger } from '@banyan/platform/telemetry';
import { type ServerProcess, eventually, startNats, testDatabase } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { EventEnvelope } from './envelope.js';
import { Nats, NatsUnavailableError } from './nats.js';
import { NatsPeers } from './nats-rpc.js';
import { callOf, OverNats, alice, createToyTables, natsTo, startToy, toyConfig } from './toy.spec-support.js';
import { nobodys, wireTo } from './wires.spec-support.js';

// What holds for every wire is in remote.spec.ts; here is what a broker adds.
const test = testDatabase({ contexts: ['inventory', 'orders'] });
let server: ServerProcess;
beforeAll(async () => {
  await createToyTables(test);
  server = await startNats();
});
afterAll(() => server.stop());

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
const connected = async (url = server.url, name?: string) => {
  const nats = await natsTo(url, name);
  closing.push(() => nats.close());
  return nats;
};
const peer = (nats: Nats, side: 'monolith' | 'service' = 'monolith') =>
  new NatsPeers(nats, rpcToken(toyConfig)).to({ context: 'inventory', side, addresses: [] });
const counter = () => `c-${randomUUID()}`;
const valueOf = async (name: string) => {
  const [row] = await test.admin<{ value: number }>('select value::int from inventory.toy where name = $1', [name]);
  return row?.value ?? 0;
};

/** Users of a server that waits for a client to say who it is for as long as it takes. */
const authorization = (...users: string[]) => `authorization { timeout: 60, users: [${users.join('\n')}] }`;

describe('the connection', () => {
  const settings = (url: string, more: { user?: string; password?: string } = {}) => ({
    servers: [url],
    tls: {},
    ...more,
  });

  it('says what to do when there is no broker', async () => {
    const url = `nats://127.0.0.1:${nobodys[0]}`;
    const tried = Nats.connect(settings(url), { name: 'monolith', patienceMs: 300 });
    await expect(tried).rejects.toThrow(NatsUnavailableError);
    await expect(tried).rejects.toThrow(
      /cannot be reached at 127\.0\.0\.1:\d+ \((connection refused|timeout)\): check NATS_URL/,
    );
  });

  it('waits for a broker that is starting as well', async () => {
    const late = await startNats();
    closing.push(() => late.stop());
    await late.kill();
    const tried = Nats.connect(settings(late.url), { name: 'monolith', patienceMs: 40_000 });
    tried.catch(() => {}); // looked at below
    await late.restart();
    const nats = await tried;
    expect(nats.connected).toBe(true);
    await nats.close();
  });

  it('says at once that its user is refused, and shows no password', async () => {
    const guarded = await startNats({ config: authorization('{ user: "monolith", password: "right" }') });
    closing.push(() => guarded.stop());
    // More patience than this spec has.
    const who = { name: 'monolith', patienceMs: 120_000 };
    const refused = async (more: { user?: string; password?: string }) => {
      const error = await Nats.connect(settings(guarded.url, more), who).catch((e: Error) => e);
      expect(error).toBeInstanceOf(NatsUnavailableError);
      return (error as Error).message;
    };
    expect(await refused({ user: 'monolith', password: 'wrong-one' })).toMatch(
      /refuses the user monolith: check NATS_USER and NATS_PASSWORD$/,
    );
    expect(await refused({})).toMatch(/refuses a connection without a user/);

    const url = guarded.url.replace('nats://', 'nats://monolith:right@');
    const nats = await Nats.connect(settings(url), who);
    expect(nats.where).not.toContain('right');
    await nats.close();
  });

  it('comes back by itself, tells when, and ends at once while the broker is away', async () => {
    const restarting = await startNats();
    closing.push(() => restarting.stop());
    const nats = await connected(restarting.url);
    const told: boolean[] = [];
    nats.onChange((now) => told.push(now));
    await restarting.kill();
    await eventually(() => !nats.connected);
    expect(nats.fault).toMatch(/^no connection to 127/);
    await restarting.restart();
    await eventually(() => nats.connected);
    expect(nats.fault).toBeUndefined();
    expect(told).toEqual([false, true]);

    await restarting.kill();
    await eventually(() => !nats.connected);
    // Without a connection a flush waits for one.
    const flush = vi.spyOn(nats.connection, 'flush');
    await nats.close();
    expect(flush).not.toHaveBeenCalled();
  });
});

describe('permissions', () => {
  const users = authorization(
    '{ user: "monolith", password: "m" }',
    '{ user: "mute", password: "m", permissions: { publish: "banyan.call.monolith.orders.>", subscribe: "_INBOX_mute.>" } }',
  );
  let guarded: ServerProcess;
  const as = async (user: string) => connected(guarded.url.replace('nats://', `nats://${user}:m@`), user);
  beforeAll(async () => void (guarded = await startNats({ config: users })));
  afterAll(() => guarded.stop());

  it('that are missing stop a process at its start, with the subjects that it needs', async () => {
    const nats = await as('mute');
    await expect(startToy(test, { nats })).rejects.toThrow(
      /does not let this process listen to banyan\.call\.monolith\.inventory\.\*, .*: check NATS_USER and its permissions/,
    );
  });

  it('for one subject do not let a message through that is about another', async () => {
    const toy = await startToy(test, { nats: await as('monolith') });
    closing.push(toy.close);
    const mute = await as('mute');
    const name = counter();
    const add = callOf('add', { name, by: 1 });
    expect(await peer(mute).call(add)).toMatchObject({
      ok: false,
      error: { code: 'CONTEXT_UNREACHABLE', message: expect.stringContaining('does not let this process send') },
    });
    const data = { token: rpcToken(toyConfig), envelope: add };
    const packet = new TextEncoder().encode(JSON.stringify({ pattern: 'any', id: '1', data }));
    const answer = await mute.request('banyan.call.monolith.orders.begin', packet, 20_000);
    expect(answer.json()).toMatchObject({ response: { ok: false, error: { code: 'FORBIDDEN' } } });
    expect(await valueOf(name)).toBe(0);
  });
});

describe('rights that are taken away and given back while a process runs', () => {
  const users = (rights: string) =>
    authorization(`{ user: "monolith", password: "m" ${rights} }`, '{ user: "caller", password: "m" }');

  it('are told meanwhile, and then it serves again', async () => {
    const guarded = await startNats({ config: users('') });
    closing.push(() => guarded.stop());
    const as = (user: string) => connected(guarded.url.replace('nats://', `nats://${user}:m@`), user);
    const there = await as('monolith');
    const toy = await startToy(test, { nats: there });
    closing.push(toy.close);
    const caller = peer(await as('caller'));
    const answered = async () => (await caller.call(callOf('sleep', { ms: 0 }))).ok;
    expect(await answered()).toBe(true);

    await guarded.reload(users(', permissions: { publish: ">", subscribe: "_INBOX_monolith.>" }'));
    const mayNot = /does not let this process listen to .*banyan\.call\.monolith\.inventory/;
    await eventually(() => mayNot.test(there.fault ?? ''));
    expect(await answered()).toBe(false);

    await guarded.reload(users(''));
    await eventually(answered, { timeoutMs: 30_000 });
    // It asks for one subject after the other.
    await eventually(() => there.fault === undefined);
  });

  it('and a password that is wrong for a while is said once, as is that all is well again', async () => {
    const guarded = await startNats({ config: users('') });
    closing.push(() => guarded.stop());
    const nats = await connected(guarded.url.replace('nats://', 'nats://monolith:m@'), 'monolith');
    const told: boolean[] = [];
    nats.onChange((now) => told.push(now));
    const said = (['error', 'warn', 'info'] as const).map((level) => vi.spyOn(rootLogger(), level));
    closing.push(() => vi.restoreAllMocks());
    await guarded.reload(authorization('{ user: "monolith", password: "another" }'));
    await eventually(() => !nats.connected);
    // It is tried every 100 to 200 ms.
    const until = Date.now() + 1_500;
    await eventually(() => Date.now() > until);
    await guarded.reload(users(''));
    await eventually(() => nats.connected);
    expect(said.map((level) => level.mock.calls.length)).toEqual([1, 1, 1]);
    expect(told).toEqual([false, true]);
  });
});

describe('answers to what was asked before the connection broke', () => {
  it('are refused by the broker, which is said once; callers know from their own connection', async () => {
    const answers = 'allow_responses: { max: 100, expires: "1m" }';
    const guarded = await startNats({
      config: authorization(
        `{ user: "monolith", password: "m", permissions: { subscribe: ">", ${answers} } }`,
        '{ user: "caller", password: "m" }',
      ),
    });
    closing.push(() => guarded.stop());
    const as = (user: string) => connected(guarded.url.replace('nats://', `nats://${user}:m@`), user);
    const there = await as('monolith');
    const toy = await startToy(test, { nats: there });
    closing.push(toy.close);
    let letGo!: () => void;
    const held = new Promise<void>((resolve) => (letGo = resolve));
    const handled: Promise<unknown>[] = [];
    const endpoint = toy.bus.endpoint('inventory')!;
    const handle = endpoint.handle.bind(endpoint);
    endpoint.handle = (envelope) => {
      const reply = held.then(() => handle(envelope));
      handled.push(reply);
      return reply;
    };
    const caller = await as('caller');
    const said = vi.spyOn(rootLogger(), 'error');
    closing.push(() => vi.restoreAllMocks(), letGo);
    const saidOfAnswers = () =>
      said.mock.calls.filter((each) => /an answer to a request of an earlier connection/.test(JSON.stringify(each)));

    const asked = Array.from({ length: 5 }, () => peer(caller).call(callOf('sleep', { ms: 0 })));
    await eventually(() => handled.length === asked.length);
    await guarded.restart();
    for (const reply of await Promise.all(asked))
      expect(reply).toMatchObject({ error: { code: 'UPSTREAM_UNAVAILABLE' } });
    await eventually(() => there.connected && caller.connected);
    letGo();
    await Promise.all(handled);
    await eventually(() => saidOfAnswers().length > 0);
    // One after the other: when these are answered, so are they, and what the broker says of it has been heard.
    await eventually(async () => (await peer(caller).call(callOf('sleep', { ms: 0 }))).ok);
    await there.connection.flush();
    expect((await peer(caller).call(callOf('sleep', { ms: 0 }))).ok).toBe(true);
    expect(saidOfAnswers()).toHaveLength(1);
  });
});

describe('several processes of one side', () => {
  it(
    'share the calls, and one that stops leaves in the middle of them without a failed one',
    { timeout: 120_000 },
    async () => {
      const caller = await startToy(test, {}, { placement: new OverNats(await connected()), holdMs: 20_000 });
      closing.push(caller.close);
      const served = [0, 0, 0];
      const toys = await Promise.all(
        served.map(async (_, i) => {
          const nats = await connected();
          const toy = await startToy(test, { nats });
          const endpoint = toy.bus.endpoint('inventory')!;
          const handle = endpoint.handle.bind(endpoint);
          endpoint.handle = (envelope) => {
            served[i]!++;
            return handle(envelope);
          };
          return toy;
        }),
      );
      const names = Array.from({ length: 8 }, counter);
      let stopped: Promise<void> | undefined;
      let sent = 0;
      const worker = async (name: string) => {
        while (sent < 240) {
          if (++sent === 80) stopped = toys[0]!.close();
          await caller.counting.add({ name, by: 1 });
        }
      };
      await Promise.all(names.map(worker));
      await stopped;
      await Promise.all([toys[1]!.close(), toys[2]!.close()]);
      const values = await Promise.all(names.map(valueOf));
      expect(values.reduce((sum, value) => sum + value)).toBe(sent);
      for (const each of served) expect(each).toBeGreaterThan(10);
    },
  );
});

describe('a process that has got a call', () => {
  it(
    'and works long on it is waited for; when it dies, that is known before the deadline',
    { timeout: 120_000 },
    async () => {
      const nats = await connected();
      const toy = await startToy(test, { nats });
      closing.push(toy.close);
      const caller = await connected();
      const deadline = Date.now() + 60_000;
      const long = peer(caller).call(callOf('sleep', { ms: 6_500 }, { deadline }));

      // Its host is gone: nobody closes the connection, and nobody answers.
      const silent = await connected();
      silent.connection.subscribe('banyan.call.service.inventory.*');
      await silent.connection.flush();
      const started = performance.now();
      const reply = await peer(caller, 'service').call(callOf('sleep', { ms: 0 }, { deadline }));
      expect(reply).toMatchObject({ ok: false, error: { code: 'UPSTREAM_UNAVAILABLE' } });
      expect(performance.now() - started).toBeLessThan(25_000);
      expect((await long).ok).toBe(true);
    },
  );
});

describe('a broker', () => {
  it('that is killed and started in the middle loses no effect and doubles none', { timeout: 180_000 }, async () => {
    const restarting = await startNats();
    closing.push(() => restarting.stop());
    const [here, there] = [await connected(restarting.url), await connected(restarting.url)];
    const toy = await startToy(test, { nats: there });
    closing.push(toy.close);
    // However long the broker is away.
    const caller = await startToy(test, {}, { placement: new OverNats(here), holdMs: 60_000 });
    const patient = { actor: alice, timeoutMs: 60_000 };
    closing.push(caller.close);
    const name = counter();
    const codes = new Set<string>();
    let done = 0;
    /** As a client does: with a key, again until there is an answer. */
    const once = async () => {
      const idempotencyKey = randomUUID();
      await eventually(
        () =>
          caller.counting.add({ name, by: 1 }, { ...patient, idempotencyKey }).then(
            () => true,
            (error: { code: string; kind: string }) => {
              codes.add(error.code);
              throw error as unknown as Error;
            },
          ),
        { timeoutMs: 60_000 },
      );
      done++;
    };
    const restarts = async () => {
      for (const at of [150, 300]) {
        await eventually(() => done >= at, { timeoutMs: 60_000 });
        await restarting.restart();
      }
    };
    const calls = Array.from({ length: 6 }, async () => {
      for (let i = 0; i < 75; i++) await once();
    });
    await Promise.all([restarts(), ...calls]);
    expect(await valueOf(name)).toBe(450);
    // Only those that may have run fail; those that have not are held and sent again.
    for (const code of codes) expect(['UPSTREAM_UNAVAILABLE', 'IDEMPOTENCY_IN_PROGRESS']).toContain(code);
  });

  it('that hangs is waited for until the deadline, and no longer', async () => {
    const hanging = await startNats();
    closing.push(() => hanging.stop());
    const nats = await connected(hanging.url);
    // Were nobody there, the broker could still say so before it stops.
    nats.connection.subscribe('banyan.call.monolith.>');
    await nats.connection.flush();
    const goOn = hanging.pause();
    closing.push(goOn);
    const started = performance.now();
    const reply = await peer(nats).call(callOf('sleep', { ms: 0 }, { deadline: Date.now() + 300 }));
    expect(reply).toMatchObject({ ok: false, error: { code: 'DEADLINE_EXCEEDED' } });
    expect(performance.now() - started).toBeLessThan(7_000);

    // Nor does it keep a process from stopping: not for as long as it takes to find out that it hangs.
    const stopping = performance.now();
    await nats.close();
    expect(performance.now() - stopping).toBeLessThan(7_000);
  });

  it('that goes while a process starts is named', async () => {
    const going = await startNats();
    closing.push(() => going.stop());
    const nats = await connected(going.url);
    going.pause();
    const starting = startToy(test, { nats });
    starting.catch(() => {});
    await going.kill();
    await expect(starting).rejects.toThrow(/^The connection to NATS at .* broke while this process started/);
  });

  it('that never comes back is no reason to wait: nothing has run', async () => {
    const wire = await wireTo(server.port);
    const nats = await connected(`nats://127.0.0.1:${wire.port}`);
    wire.close();
    await eventually(() => !nats.connected);
    const started = performance.now();
    expect(await peer(nats).call(callOf('sleep', { ms: 0 }))).toMatchObject({ error: { code: 'CONTEXT_UNREACHABLE' } });
    expect(performance.now() - started).toBeLessThan(7_000);
  });

  it('gets events in as many messages as its limit needs, and one that is longer fails by itself', async () => {
    const heard: string[] = [];
    const toy = await startToy(test, { nats: await connected(), heard: ({ id }) => void heard.push(id) });
    closing.push(toy.close);
    const event = (length: number): EventEnvelope => ({
      specversion: '1.0',
      id: newId(),
      source: '/banyan/inventory',
      type: 'inventory.Added',
      subject: `counter/${counter()}`,
      time: new Date().toISOString(),
      datacontenttype: 'application/json',
      data: { name: 'x'.repeat(length), by: 1, value: 1 },
      aggregateversion: 1,
      previous: null,
    });
    const events = [event(10), event(700_000), event(10), event(1_200_000), event(600_000), event(10)];
    const receipts = await peer(await connected()).deliver('orders', events);
    expect(receipts.map(({ id }) => id)).toEqual(events.map(({ id }) => id));
    expect(receipts.map(({ verdict }) => verdict)).toEqual([
      'applied',
      'applied',
      'applied',
      'failed',
      'applied',
      'applied',
    ]);
    expect(receipts[3]).toMatchObject({ error: 'longer than NATS takes (1048576)' });
    expect(heard).toHaveLength(5);
  });
});
