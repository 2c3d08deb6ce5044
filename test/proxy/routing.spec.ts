import { mkdtemp, rm } from 'node:fs/promises';
import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Routing, RoutingFollower } from '@banyan/extraction';
import { staticCanary } from '@banyan/extraction/flags';
import { ReadOperations } from '@banyan/extraction/parity';
import { AccessLog, Directory, Proxy } from '@banyan/proxy';
import { eventually } from '@banyan/testing';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { Recorder, type Recorded, values } from './recorder.js';
import { ToyRouting, canaryFor, startToy } from './toy.js';

const answer = (status: string, body: string, ...headers: string[]): string =>
  [`HTTP/1.1 ${status}`, `content-length: ${body.length}`, ...headers, '', body].join('\r\n');
const says =
  (body: string, ...headers: string[]) =>
  () =>
    answer('200 OK', body, ...headers);
const fenced = (context: string) =>
  answer('503 Service Unavailable', 'fenced', `Banyan-Fenced: ${context}`, 'Retry-After: 1');

async function sides() {
  const monolith = await Recorder.start(says('monolith'));
  const service = await Recorder.start(says('service'));
  return { monolith, service };
}

const asked = async (url: string, init?: RequestInit) => {
  const response = await fetch(url, init);
  return {
    status: response.status,
    by: response.headers.get('banyan-served-by'),
    body: await response.text(),
    headers: response.headers,
  };
};
const patient = { timeoutMs: 20_000 };
const session = (id: string, more: Record<string, string> = {}) => ({ headers: { 'banyan-session': id, ...more } });

describe('the side, by stage and class', () => {
  it.each([
    ['monolith', 'monolith', 'monolith', 'monolith'],
    ['replicate', 'monolith', 'monolith', 'monolith'],
    ['shadow', 'monolith', 'monolith', 'monolith'],
    ['canary', 'monolith', 'service', 'monolith'],
    ['live', 'service', 'service', 'service'],
  ] as const)('%s', async (stage, owner, reads, commands) => {
    const { monolith, service } = await sides();
    const routing = ToyRouting.of(monolith.url, { inventory: { stage, owner, at: service.url } });
    const { url } = await startToy(routing, { canary: canaryFor('ann') });
    expect(await asked(`${url}/v1/stock/1`, session('ann'))).toMatchObject({ body: reads, by: reads });
    expect(await asked(`${url}/v1/stock/1`, { method: 'HEAD', ...session('ann') })).toMatchObject({ by: reads });
    for (const method of ['PUT', 'POST', 'DELETE', 'PATCH'])
      expect(await asked(`${url}/v1/stock/1`, { method, ...session('ann') })).toMatchObject({ by: commands });
    expect(await asked(`${url}/v1/other`, session('ann'))).toMatchObject({ by: 'monolith' });
    expect(await asked(`${url}/v1/stocks`, session('ann'))).toMatchObject({ by: 'monolith' });
    expect(await asked(`${url}/V1/STOCK/1`, session('ann'))).toMatchObject({ by: reads });
  });

  it('a canary sticks to the user, else the session, else the monolith, and the decision travels', async () => {
    const { monolith, service } = await sides();
    const canary = { stage: 'canary', at: service.url } as const;
    const routing = ToyRouting.of(monolith.url, { inventory: canary, catalog: canary });
    const { url } = await startToy(routing, { canary: staticCanary({ inventory: 50, catalog: 50 }) });
    const jwt = (sub: string) => `Bearer e30.${Buffer.from(JSON.stringify({ sub })).toString('base64url')}.x`;
    const chosen = new Set<string>();
    for (let user = 0; user < 30; user++) {
      const headers = { authorization: jwt(`user-${user}`) };
      const first = await asked(`${url}/v1/stock/1`, { headers });
      // The session of a user changes with every login, the user does not.
      const again = await asked(`${url}/v1/stock/2`, { headers: { ...headers, cookie: `banyan_session=s${user}` } });
      expect(again.by).toBe(first.by);
      chosen.add(first.by!);
      const seen = (first.by === 'service' ? service : monolith).requests.at(-1)!;
      expect(values(seen, 'banyan-placement')[0]).toMatch(/^inventory=(service|monolith), catalog=(service|monolith)$/);
      expect(values(seen, 'banyan-placement')[0]).toContain(`inventory=${first.by}`);
    }
    expect([...chosen].sort()).toEqual(['monolith', 'service']);
    expect((await asked(`${url}/v1/stock/1`)).by).toBe('monolith');
  });

  it('the name of the side is left out on demand, and never taken from the upstream', async () => {
    const monolith = await Recorder.start(says('x', 'Banyan-Served-By: somebody'));
    const quiet = await startToy(ToyRouting.of(monolith.url), { servedBy: false });
    expect((await asked(`${quiet.url}/`)).by).toBeNull();
    const loud = await startToy(ToyRouting.of(monolith.url));
    expect((await asked(`${loud.url}/`)).by).toBe('monolith');
  });
});

describe('own writes first', () => {
  const canaryAt = (at: string) => ({ inventory: { stage: 'canary', epoch: 3, at } }) as const;

  it.each([
    ['no token', undefined, 'service'],
    ['an earlier epoch', 'inventory=service:2', 'service'],
    ['this epoch with a position in the log', 'inventory=monolith:3:0/16B3748', 'service'],
    ['this epoch without one', 'inventory=monolith:3', 'monolith'],
    ['a later epoch, written by the monolith', 'inventory=monolith:5', 'monolith'],
    ['a later epoch, written by the service', 'inventory=service:4', 'service'],
    ["another context's", 'orders=monolith:3', 'service'],
    ['nonsense', 'constructor=monolith:3, x', 'service'],
  ])('%s', async (_, token, side) => {
    const { monolith, service } = await sides();
    const { url } = await startToy(ToyRouting.of(monolith.url, canaryAt(service.url)), { canary: canaryFor('ann') });
    const headers = token ? { 'banyan-consistency': token } : undefined;
    expect((await asked(`${url}/v1/stock/1`, session('ann', headers))).by).toBe(side);
  });

  it('is remembered for clients that do not send it back', async () => {
    const { monolith, service } = await sides();
    monolith.answer = ({ line }) =>
      line.startsWith('PUT')
        ? answer('200 OK', 'monolith', 'Banyan-Consistency: inventory=monolith:3:0/AA')
        : says('monolith')();
    const { url } = await startToy(ToyRouting.of(monolith.url, canaryAt(service.url)), {
      canary: canaryFor('ann', 'bob'),
    });
    const written = await asked(`${url}/v1/stock/1`, { method: 'PUT', body: '{}', ...session('ann') });
    expect(written.headers.get('banyan-consistency')).toBe('inventory=monolith:3:0/AA');
    await asked(`${url}/v1/stock/1`, session('ann'));
    expect(values(service.requests[0]!, 'banyan-consistency')).toEqual(['inventory=monolith:3:0/AA']);
    // The later one of both counts; another session has none.
    await asked(`${url}/v1/stock/1`, session('ann', { 'banyan-consistency': 'inventory=monolith:3:0/BB' }));
    expect(values(service.requests[1]!, 'banyan-consistency')).toEqual(['inventory=monolith:3:0/BB']);
    await asked(`${url}/v1/stock/1`, session('bob'));
    expect(values(service.requests[2]!, 'banyan-consistency')).toEqual([]);
  });

  it('a service that is behind says so, and the monolith serves the read', async () => {
    const { monolith, service } = await sides();
    service.answer = () => answer('503 Service Unavailable', 'behind', 'Banyan-Behind: inventory');
    const { url, proxy } = await startToy(ToyRouting.of(monolith.url, canaryAt(service.url)), {
      canary: canaryFor('ann'),
    });
    const told = await asked(
      `${url}/v1/stock/1`,
      session('ann', { 'banyan-consistency': 'inventory=monolith:3:0/AA' }),
    );
    expect(told).toMatchObject({ status: 200, body: 'monolith', by: 'monolith' });
    expect(values(monolith.requests[0]!, 'banyan-placement')).toEqual(['inventory=monolith']);
    expect(proxy.edge.figures.contexts()['inventory']!.traffic.service.errors).toBe(0);
  });

  it('what a service does not know may not have come yet: the monolith is asked', async () => {
    const { monolith, service } = await sides();
    service.answer = () => answer('404 Not Found', 'unknown');
    const { url, proxy } = await startToy(ToyRouting.of(monolith.url, canaryAt(service.url)), {
      canary: canaryFor('ann'),
    });
    const told = await asked(`${url}/v1/stock/1`, session('ann'));
    expect(told).toMatchObject({ status: 200, body: 'monolith', by: 'monolith' });
    expect(service.requests).toHaveLength(1);
    expect(proxy.edge.figures.contexts()['inventory']!.traffic.service.errors).toBe(0);
  });
});

describe('a broken canary', () => {
  const broken: Record<string, Recorder['answer']> = {
    hangs: () => undefined,
    'answers 500': () => answer('500 Internal Server Error', 'x'.repeat(10_000)),
    'answers 503': () => answer('503 Service Unavailable', 'not now'),
    'breaks off': (_, socket) => void socket.destroy(),
    'speaks something else': () => 'SSH-2.0-OpenSSH_9.2\r\n\r\n',
  };
  it.each(Object.entries(broken))(
    '%s: its reads are served by the monolith, and it is counted',
    async (_, misbehave) => {
      const { monolith, service } = await sides();
      service.answer = misbehave;
      const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url } });
      const { url, proxy } = await startToy(routing, { canary: canaryFor('ann'), limits: { candidateMs: 100 } });
      const from = performance.now();
      for (let n = 0; n < 8; n++)
        expect(await asked(`${url}/v1/stock/${n}`, session('ann'))).toMatchObject({
          status: 200,
          body: 'monolith',
          by: 'monolith',
        });
      const { traffic } = proxy.edge.figures.contexts()['inventory']!;
      expect(traffic.service.errors).toBeGreaterThanOrEqual(1);
      expect(traffic.monolith).toMatchObject({ requests: 8, errors: 0 });
      // After five in a row the circuit is open; one a second still finds out whether it is well again.
      expect(service.requests.length).toBeLessThanOrEqual(5 + Math.floor((performance.now() - from) / 1_000));
      service.answer = says('service');
      await eventually(async () => (await asked(`${url}/v1/stock/1`, session('ann'))).by === 'service', patient);
    },
  );

  it('when its circuit is open and the monolith hangs up, a read is sent to the monolith once more', async () => {
    const { monolith, service } = await sides();
    service.answer = broken['answers 500']!;
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url } });
    const { url } = await startToy(routing, { canary: canaryFor('ann') });
    for (let n = 0; n < 6; n++) await asked(`${url}/v1/stock/${n}`, session('ann'));
    for (let n = 0; n < 5; n++) {
      monolith.answer = (_, socket) => {
        monolith.answer = says('monolith');
        socket.destroy();
        return undefined;
      };
      const soon = { ...session('ann'), signal: AbortSignal.timeout(20_000) };
      expect(await asked(`${url}/v1/stock/1`, soon)).toMatchObject({ status: 200, by: 'monolith' });
    }
  });

  it('nobody listens there: the same', async () => {
    const { monolith, service } = await sides();
    const at = service.url;
    await service.stop();
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at } });
    const { url } = await startToy(routing, { canary: canaryFor('ann') });
    expect(await asked(`${url}/v1/stock/1`, session('ann'))).toMatchObject({ status: 200, by: 'monolith' });
  });

  it('a command is never sent twice: a POST whose answer does not come is told as it is', async () => {
    const monolith = await Recorder.start((_, socket) => void socket.destroy());
    const { url } = await startToy(ToyRouting.of(monolith.url));
    expect((await asked(`${url}/v1/orders`, { method: 'POST', body: '{}' })).status).toBe(502);
    expect(monolith.requests).toHaveLength(1);
  });

  it('a monolith that is away: 503 with Retry-After; one that hangs: 504', async () => {
    const monolith = await Recorder.start(() => undefined);
    const { url } = await startToy(ToyRouting.of(monolith.url), { limits: { requestMs: 150 } });
    expect((await asked(`${url}/`)).status).toBe(504);
    await monolith.stop();
    const away = await asked(`${url}/`);
    expect(away.status).toBe(503);
    expect(away.headers.get('retry-after')).toBe('1');
    expect(away.headers.get('content-type')).toBe('application/problem+json');
  });
});

describe('while the owner changes', () => {
  const put = { method: 'PUT', body: '{"onHand":1}', headers: { 'content-type': 'application/json' } };

  it('commands wait, reads do not, and all waiting commands go to the new owner', async () => {
    const { monolith, service } = await sides();
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url, holding: true } });
    const { url } = await startToy(routing);
    const isPut = ({ line }: Recorded) => line.startsWith('PUT');
    const done: string[] = [];
    let open = false;
    // Nobody owns it meanwhile: what has waited for 400 ms is tried all the same, and refused.
    monolith.answer = (request) => (isPut(request) ? fenced('inventory') : says('monolith')());
    service.answer = ({ body }) => (open ? (done.push(body), says('service')()) : fenced('inventory'));
    const from = performance.now();
    const held = Array.from({ length: 20 }, () => asked(`${url}/v1/stock/1`, put));
    expect((await asked(`${url}/v1/stock/1`)).status).toBe(200);
    expect((await asked(`${url}/v1/orders`, { method: 'POST', body: '{}' })).by).toBe('monolith');
    const sent = [...monolith.requests, ...service.requests].filter(isPut);
    if (performance.now() - from < 400) expect(sent).toEqual([]);
    open = true;
    routing.push('inventory', { stage: 'live', owner: 'service', epoch: 2, holding: false });
    expect((await Promise.all(held)).map(({ by }) => by)).toEqual(Array.from({ length: 20 }, () => 'service'));
    expect(done).toEqual(Array.from({ length: 20 }, () => put.body));
  });

  it('not for ever: 503 with Retry-After, and nothing was sent', async () => {
    const { monolith, service } = await sides();
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url, holding: true } });
    const { url } = await startToy(routing, { limits: { holdMs: 150 } });
    const told = await asked(`${url}/v1/stock/1`, put);
    expect(told.status).toBe(503);
    expect(told.headers.get('retry-after')).toBe('1');
    expect(JSON.parse(told.body)).toMatchObject({ status: 503, code: 'UNAVAILABLE' });
    expect([...monolith.requests, ...service.requests]).toEqual([]);
  });

  it('a hold that nobody ends: the owner that was told of is tried, then the other side', async () => {
    const { monolith, service } = await sides();
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url, holding: true } });
    const { url } = await startToy(routing);
    expect(await asked(`${url}/v1/stock/1`, put)).toMatchObject({ status: 200, by: 'monolith' });
    monolith.answer = () => fenced('inventory');
    expect(await asked(`${url}/v1/stock/1`, put)).toMatchObject({ status: 200, by: 'service' });
    expect([monolith.requests.length, service.requests.length]).toEqual([2, 1]);
  });

  it('a fenced command is sent again when the news comes', async () => {
    const { monolith, service } = await sides();
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url } });
    monolith.answer = () => {
      setImmediate(() => routing.push('inventory', { stage: 'live', owner: 'service', epoch: 2 }));
      return fenced('inventory');
    };
    const { url } = await startToy(routing);
    const told = await asked(`${url}/v1/stock/1`, put);
    expect(told).toMatchObject({ status: 200, by: 'service' });
    expect(told.headers.get('banyan-fenced')).toBeNull();
    expect(service.requests.map(({ body }) => body)).toEqual([put.body]);
  });

  it('without news the other side is tried, and back again', async () => {
    const { monolith, service } = await sides();
    let refusals = 0;
    service.answer = () => (refusals++ === 0 ? fenced('inventory') : says('service')());
    monolith.answer = () => fenced('inventory');
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url } });
    const { url } = await startToy(routing);
    expect(await asked(`${url}/v1/stock/1`, put)).toMatchObject({ status: 200, by: 'service' });
    expect([monolith.requests.length, service.requests.length]).toEqual([2, 2]);
  });

  it('nobody takes it: 503 after the hold, without the word between routers', async () => {
    const { monolith, service } = await sides();
    monolith.answer = service.answer = () => fenced('inventory');
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url } });
    const { url } = await startToy(routing, { limits: { holdMs: 350 } });
    const told = await asked(`${url}/v1/stock/1`, put);
    expect(told.status).toBe(503);
    expect(told.headers.get('retry-after')).toBe('1');
    expect(told.headers.get('banyan-fenced')).toBeNull();
    expect(monolith.requests.length + service.requests.length).toBeLessThan(8);
  });

  it('a chunked body is sent again, too, if it was small; a large one is not', async () => {
    const { monolith, service } = await sides();
    monolith.answer = () => fenced('inventory');
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url } });
    const { url } = await startToy(routing);
    const stream = (bytes: number) =>
      ({ method: 'PUT', body: new Blob(['x'.repeat(bytes)]).stream(), duplex: 'half' }) as RequestInit;
    expect(await asked(`${url}/v1/stock/1`, stream(10_000))).toMatchObject({ status: 200, by: 'service' });
    expect(service.requests[0]!.body).toHaveLength(10_000);
    const large = await asked(`${url}/v1/stock/1`, stream(200_000));
    expect(large.status).toBe(503);
    expect(large.headers.get('banyan-fenced')).toBeNull();
    expect(service.requests).toHaveLength(1);
  });

  it('refused further in: the same way once more', async () => {
    const { monolith } = await sides();
    let refusals = 0;
    monolith.answer = () => (refusals++ === 0 ? fenced('inventory') : says('monolith')());
    const { url } = await startToy(ToyRouting.of(monolith.url, { inventory: {}, orders: {} }));
    expect(await asked(`${url}/v1/orders`, { method: 'POST', body: '{}' })).toMatchObject({ status: 200 });
    expect(monolith.requests).toHaveLength(2);
  });

  it('a client that leaves while it waits is let go', async () => {
    const { monolith, service } = await sides();
    const routing = ToyRouting.of(monolith.url, { inventory: { stage: 'canary', at: service.url, holding: true } });
    const { url, lines, proxy } = await startToy(routing);
    const happened = vi.spyOn(proxy.edge.meters, 'happened');
    // What has waited for 400 ms is tried all the same: it has to leave before.
    await eventually(async () => {
      const from = performance.now();
      happened.mockClear();
      monolith.requests.length = lines.length = 0;
      const leaving = new AbortController();
      const asking = asked(`${url}/v1/stock/1`, { ...put, signal: leaving.signal }).catch(() => 'left');
      await eventually(() => expect(happened).toHaveBeenCalledWith('held', 'inventory') ?? true, { intervalMs: 5 });
      leaving.abort();
      expect(await asking).toBe('left');
      await eventually(() => lines.some((line) => line.includes('"status":499')));
      return performance.now() - from < 400;
    }, patient);
    routing.push('inventory', { holding: false });
    await asked(`${url}/v1/orders`);
    expect(monolith.requests.map(({ line }) => line)).toEqual(['GET /v1/orders HTTP/1.1']);
  });
});

describe('parity', () => {
  it.each(['shadow', 'canary', 'live'] as const)(
    '%s: reads are asked of the other side, commands are not',
    async (stage) => {
      const { monolith, service } = await sides();
      const owner = stage === 'live' ? 'service' : 'monolith';
      const routing = ToyRouting.of(monolith.url, { inventory: { stage, owner, at: service.url } });
      const { url, proxy } = await startToy(routing, { mirror: { againAfterMs: [10], timeoutMs: 20_000 } });
      await asked(
        `${url}/v1/stock/7?q=1`,
        session('ann', { 'banyan-consistency': 'inventory=monolith:0:0/AA', prefer: 'wait' }),
      );
      await asked(`${url}/v1/stock/7`, { method: 'PUT', body: '{}' });
      const other = owner === 'monolith' ? service : monolith;
      const theirs = await eventually(() => other.requests[0], patient);
      expect(theirs.line).toBe('GET /v1/stock/7?q=1 HTTP/1.1');
      expect(values(theirs, 'banyan-placement')).toEqual([
        `inventory=${owner === 'monolith' ? 'service' : 'monolith'}`,
      ]);
      expect(values(theirs, 'banyan-consistency')).toEqual([]);
      expect(values(theirs, 'prefer')).toEqual([]);
      const figures = await eventually(
        () => Object.values(proxy.edge.figures.contexts()['inventory']!.operations)[0],
        patient,
      );
      expect(figures.difference).toBe(1);
      expect(proxy.edge.figures.contexts()['inventory']!.traffic[owner].requests).toBe(2);
      expect(other.requests.filter(({ line }: Recorded) => !line.startsWith('GET'))).toEqual([]);
    },
  );
});

describe('the control plane', () => {
  const state = (revision: number, monolith: string, service: string, owner: 'monolith' | 'service'): Routing => ({
    revision,
    monolith: { http: [monolith], rpc: [{ host: '127.0.0.1', port: 1 }] },
    contexts: {
      inventory: {
        ...{ stage: owner === 'service' ? 'live' : 'shadow', owner, epoch: revision, holding: false },
        since: '2026-01-01T00:00:00.000Z',
        service: { http: [service], rpc: [{ host: '127.0.0.1', port: 1 }] },
      },
    },
  });

  async function controlPlane(first: Routing): Promise<{ url: string; push(routing: Routing): void; stop(): void }> {
    const streams = new Set<import('node:http').ServerResponse>();
    let current = first;
    const server: Server = createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`event: routing\ndata: ${JSON.stringify(current)}\n\n`);
      streams.add(response);
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const stop = () => {
      server.close();
      server.closeAllConnections();
    };
    onTestFinished(stop);
    const push = (routing: Routing) => {
      current = routing;
      for (const stream of streams) stream.write(`event: routing\ndata: ${JSON.stringify(routing)}\n\n`);
    };
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, push, stop };
  }

  async function proxyOf(controlUrl: string, file: string, fallback: string): Promise<string> {
    const follower = new RoutingFollower({
      controlUrls: [controlUrl],
      token: 'x'.repeat(16),
      file,
      log: { warn: () => {} },
    });
    await follower.start(500);
    const rules = [
      { path: '/v1/stock', context: 'inventory' },
      { path: '/', context: 'rest' },
    ];
    const proxy = new Proxy({
      directory: new Directory(rules, [fallback], follower),
      canary: canaryFor(),
      operations: new ReadOperations(),
      access: new AccessLog('silent', { write: () => {} }),
      limits: { drainMs: 50 },
      mirror: { share: 0 },
    });
    await proxy.listen(0, '127.0.0.1');
    onTestFinished(async () => {
      await proxy.close();
      await follower.stop();
    });
    return `http://127.0.0.1:${proxy.port}`;
  }

  it('is followed; its last word holds while it is away, also in a proxy that is started then', async () => {
    const { monolith, service } = await sides();
    const folder = await mkdtemp(join(tmpdir(), 'banyan-proxy-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const file = join(folder, 'routing', 'proxy.json');
    const control = await controlPlane(state(1, monolith.url, service.url, 'monolith'));
    const url = await proxyOf(control.url, file, monolith.url);
    expect((await asked(`${url}/v1/stock/1`)).by).toBe('monolith');
    control.push(state(2, monolith.url, service.url, 'service'));
    await eventually(async () => (await asked(`${url}/v1/stock/1`)).by === 'service', patient);
    control.stop();
    expect((await asked(`${url}/v1/stock/1`)).by).toBe('service');
    const second = await eventually(async () => {
      const started = await proxyOf(control.url, file, 'http://127.0.0.1:1');
      return (await asked(`${started}/v1/stock/1`)).by === 'service' ? started : undefined;
    }, patient);
    expect((await asked(`${second}/else`)).by).toBe('monolith');
  });

  it('was never there: everything is in the monolith', async () => {
    const { monolith } = await sides();
    const url = await proxyOf('http://127.0.0.1:1', join(tmpdir(), 'banyan-none', 'x.json'), monolith.url);
    expect(await asked(`${url}/v1/stock/1`)).toMatchObject({ status: 200, by: 'monolith' });
  });
});
