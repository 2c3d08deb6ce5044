import { connect } from 'node:net';
import { eventually, freePort } from '@banyan/testing';
import { describe, expect, it } from 'vitest';
import { Recorder } from './recorder.js';
import { ToyRouting, startToy } from './toy.js';

const says = (body: string) => () => `HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
const three = () => Promise.all(['one', 'two', 'three'].map((name) => Recorder.start(says(name))));
const urlsOf = (upstreams: Recorder[]) => upstreams.map(({ url }) => url);
const asked = async (url: string, init?: RequestInit) => {
  const response = await fetch(url, init);
  return { status: response.status, body: await response.text() };
};
const tally = async (url: string, times: number, init?: RequestInit) => {
  const counts: Record<string, number> = {};
  for (const { status, body } of await Promise.all(Array.from({ length: times }, () => asked(url, init)))) {
    const name = status === 200 ? body : String(status);
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
};

describe('several instances of one side', () => {
  it('share the requests', async () => {
    const monoliths = await three();
    const { url } = await startToy(ToyRouting.of(urlsOf(monoliths)));
    expect(await tally(`${url}/v1/orders`, 30)).toEqual({ one: 10, two: 10, three: 10 });
    const services = await three();
    const routing = ToyRouting.of('http://127.0.0.1:1', {
      inventory: { stage: 'live', owner: 'service', at: urlsOf(services) },
    });
    const live = await startToy(routing);
    expect(await tally(`${live.url}/v1/stock/1`, 30)).toEqual({ one: 10, two: 10, three: 10 });
  });

  it('what never reached a dead one goes to the next, whatever it is; and it serves again when it is back', async () => {
    const [one, two] = await three();
    const port = await freePort();
    const dead = await Recorder.start(says('three'), port);
    const { url } = await startToy(ToyRouting.of(urlsOf([one!, two!, dead])));
    await dead.stop();
    for (const init of [{}, { method: 'POST', body: '{"a":1}' }, { method: 'PUT', body: 'x'.repeat(200_000) }])
      expect(Object.keys(await tally(`${url}/v1/orders`, 12, init)).sort()).toEqual(['one', 'two']);
    expect([...one!.requests, ...two!.requests]).toHaveLength(36);

    await Recorder.start(says('three'), port);
    await eventually(async () => (await tally(`${url}/v1/orders`, 6))['three'] === 2, { timeoutMs: 20_000 });
  });

  it('an upload that never began at a dead one is sent whole to the next', async () => {
    const [one, dead] = await three();
    const { url } = await startToy(ToyRouting.of(urlsOf([one!, dead!])));
    await dead!.stop();
    const body = 'line\n'.repeat(100_000);
    const headers = { 'content-type': 'application/x-ndjson' };
    for (let i = 0; i < 4; i++) await asked(`${url}/v1/products/import`, { method: 'POST', body, headers });
    expect(one!.requests.map((each) => each.body.length)).toEqual(Array(4).fill(body.length));
  });

  it('none of them there: 503, nothing was sent', async () => {
    const all = await three();
    const { url } = await startToy(ToyRouting.of(urlsOf(all)));
    for (const each of all) await each.stop();
    const answer = await asked(`${url}/v1/orders`, { method: 'POST', body: '{}' });
    expect(answer.status).toBe(503);
    expect(answer.body).toMatch(/nothing was sent/);
  });

  it('one that dies in the middle: a read is sent to another, a command never', async () => {
    const all = await three();
    const { url } = await startToy(ToyRouting.of(urlsOf(all)));
    let died = 0;
    for (const each of all)
      each.answer = (_, socket) => {
        // The first two that are asked die over it.
        if (died >= 2) return says('alive')();
        died++;
        socket.destroy();
        return undefined;
      };
    expect(await asked(`${url}/v1/orders`)).toEqual({ status: 200, body: 'alive' });
    const read = all.flatMap(({ requests }) => requests).length;
    expect(read).toBe(3);
    died = 0;
    expect(await asked(`${url}/v1/orders`, { method: 'POST', body: '{}' })).toMatchObject({ status: 502 });
    expect(all.flatMap(({ requests }) => requests)).toHaveLength(read + 1);
  });

  it('one that dies in the middle of a write whose key makes it happen once: the next has it, and only then', async () => {
    const all = await three();
    const { url } = await startToy(ToyRouting.of(urlsOf(all)));
    let dying = 1;
    for (const each of all)
      each.answer = (_, socket) => {
        if (dying-- <= 0) return says('alive')();
        socket.destroy();
        return undefined;
      };
    const requests = () => all.flatMap((each) => each.requests);
    const headers = { 'idempotency-key': 'k' };
    const send = async (method: string, path: string, how: { headers?: Record<string, string>; deaths?: number }) => {
      dying = how.deaths ?? 1;
      const before = requests().length;
      const { status } = await asked(`${url}${path}`, { method, body: '{"a":1}', headers: how.headers });
      const sent = requests().slice(before);
      expect(new Set(sent.map((each) => each.body.toString()))).toEqual(new Set(['{"a":1}']));
      return [status, sent.length];
    };
    expect(await send('POST', '/v1/orders', { headers })).toEqual([200, 2]);
    expect(await send('PUT', '/v1/orders/7/items/tea', { headers })).toEqual([200, 2]);
    expect(await send('POST', '/v1/orders', {})).toEqual([502, 1]);
    // This one would not look at the key.
    expect(await send('POST', '/v1/orders/7/cancel', { headers })).toEqual([502, 1]);
    // As often as there are others.
    expect(await send('POST', '/v1/orders', { headers, deaths: 9 })).toEqual([502, 4]);
  });

  it('nobody left to ask about a write that was lost: the answer is not that nothing was done', async () => {
    const [one, two] = await three();
    const { url } = await startToy(ToyRouting.of(urlsOf([one!, two!])));
    for (const each of [one!, two!])
      each.answer = (_, socket) => {
        socket.destroy();
        void one!.stop();
        void two!.stop();
        return undefined;
      };
    const headers = { 'idempotency-key': 'k' };
    expect(await asked(`${url}/v1/orders`, { method: 'POST', body: '{}', headers })).toMatchObject({ status: 502 });
  });

  it('one that takes no connections is left out after the first try', { timeout: 60_000 }, async () => {
    const [one, two] = await three();
    // Nobody answers here (RFC 5737), nor says that nobody is there.
    const { url } = await startToy(ToyRouting.of([one!.url, two!.url, 'http://192.0.2.1:9']));
    await tally(`${url}/v1/orders`, 3);
    // Every third one would have waited for a connection there, a second each.
    let waited = 0;
    for (let i = 0; i < 50; i++) {
      const began = performance.now();
      expect((await asked(`${url}/v1/orders`)).status).toBe(200);
      if (performance.now() - began > 900) waited++;
    }
    expect(waited).toBeLessThan(5);
  });

  it('come and go while requests run', async () => {
    const [one, two, three_] = await three();
    const routing = ToyRouting.of(one!.url, {
      inventory: { stage: 'live', owner: 'service', at: [one!.url, two!.url] },
    });
    const { url } = await startToy(routing);
    let answer = (): void => {};
    two!.answer = (request, socket) => {
      if (!request.line.includes('slow')) return says('two')();
      answer = () => socket.write(says('late')());
      return undefined;
    };
    const slow = Promise.all([asked(`${url}/v1/stock/slow`), asked(`${url}/v1/stock/slow`)]);
    await eventually(() => two!.requests.length === 1);
    const rpc = [{ host: '127.0.0.1', port: 1 }];
    routing.push('inventory', { service: { http: [one!.url, three_!.url], rpc } });
    expect(await tally(`${url}/v1/stock/1`, 20)).toEqual({ one: 10, three: 10 });
    answer();
    expect((await slow).map(({ body }) => body).sort()).toEqual(['late', 'one']);
    await eventually(() => two!.sockets.size === 0, { timeoutMs: 20_000 });
  });

  it('a tunnel takes one that is there', async () => {
    const [one, dead] = await three();
    const { url, port } = await startToy(ToyRouting.of(urlsOf([dead!, one!])));
    await dead!.stop();
    expect(await tally(`${url}/v1/orders`, 4)).toEqual({ one: 4 });
    one!.answer = () => 'HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n';
    const socket = connect(port, '127.0.0.1');
    socket.write(
      'GET /v1/orders HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n' +
        'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n',
    );
    const head = await new Promise<string>((done) => socket.once('data', (chunk) => done(chunk.toString())));
    socket.destroy();
    expect(head).toMatch(/^HTTP\/1\.1 101 /);
  });
});
