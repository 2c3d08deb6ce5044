import { once } from 'node:events';
import { Agent, type IncomingMessage, type ServerResponse, createServer, request as httpRequest } from 'node:http';
import { type AddressInfo, type Socket, connect } from 'node:net';
import { eventually } from '@banyan/testing';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Recorder, raw, statusesOf, values } from './recorder.js';
import { ToyRouting, startToy } from './toy.js';

/** A real HTTP server as the monolith. */
async function monolith(handle: (request: IncomingMessage, response: ServerResponse) => void) {
  const server = createServer(handle);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

const patient = { timeoutMs: 20_000 };

const whole = async (stream: IncomingMessage): Promise<string> => {
  let text = '';
  for await (const chunk of stream.setEncoding('utf8')) text += chunk;
  return text;
};

describe('bodies', () => {
  it('stream both ways at once', async () => {
    const { url } = await monolith((request, response) => void request.pipe(response));
    const { port } = await startToy(ToyRouting.of(url));
    const outgoing = httpRequest({
      port,
      method: 'POST',
      path: '/echo',
      headers: { 'content-type': 'application/x-ndjson' },
    });
    outgoing.write('one\n');
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    response.setEncoding('utf8');
    expect((await once(response, 'data'))[0]).toBe('one\n');
    outgoing.write('two\n');
    expect((await once(response, 'data'))[0]).toBe('two\n');
    outgoing.end();
    await once(response, 'end');
  });

  it('a slow reader slows the upstream down: the proxy keeps no more than a little', async () => {
    let written = 0;
    const { url } = await monolith((_, response) => {
      const chunk = Buffer.alloc(64 * 1024);
      const more = (): void => {
        while (written < 512 * 1024 * 1024) {
          written += chunk.length;
          if (!response.write(chunk)) return void response.once('drain', more);
        }
      };
      more();
    });
    const { port } = await startToy(ToyRouting.of(url));
    const outgoing = httpRequest({ port, path: '/endless' }).end();
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    response.pause();
    let before = -1;
    await eventually(
      () => {
        const still = written === before;
        before = written;
        return still;
      },
      { intervalMs: 200 },
    );
    // What the kernel keeps for three sockets, and not half a gigabyte.
    expect(written).toBeLessThan(64 * 1024 * 1024);
    outgoing.destroy();
  });

  it('a slow upstream slows the sender down', async () => {
    let request: IncomingMessage | undefined;
    const { url } = await monolith((incoming) => void (request = incoming.pause()));
    const { port } = await startToy(ToyRouting.of(url));
    const outgoing = httpRequest({ port, method: 'POST', path: '/upload' });
    outgoing.on('error', () => {});
    const chunk = Buffer.alloc(64 * 1024);
    let sent = 0;
    const more = (): void => {
      while (sent < 512 * 1024 * 1024) {
        sent += chunk.length;
        if (!outgoing.write(chunk)) return void outgoing.once('drain', more);
      }
    };
    more();
    await eventually(() => request);
    let before = -1;
    await eventually(
      () => {
        const still = sent === before;
        before = sent;
        return still;
      },
      { intervalMs: 200 },
    );
    expect(sent).toBeLessThan(64 * 1024 * 1024);
    outgoing.destroy();
  });

  it('an early answer to an endless upload arrives', async () => {
    const { url } = await monolith(
      (_, response) => void response.writeHead(413, { connection: 'close' }).end('too much'),
    );
    const { port } = await startToy(ToyRouting.of(url));
    const outgoing = httpRequest({ port, method: 'POST', path: '/upload' });
    outgoing.on('error', () => {});
    const feed = setInterval(() => outgoing.write('x'.repeat(10_000)), 5);
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    expect([response.statusCode, await whole(response)]).toEqual([413, 'too much']);
    expect(response.headers.connection).toBe('close');
    clearInterval(feed);
    outgoing.destroy();
  });

  it('a client that leaves ends the work behind the proxy', async () => {
    const left: string[] = [];
    const leave = new Map<string, () => void>();
    const { url } = await monolith((request, response) => {
      response.once('close', () => left.push(request.url!));
      leave.get(request.url!)!();
    });
    const { port } = await startToy(ToyRouting.of(url));
    for (const path of ['/waiting', '/another']) {
      const outgoing = httpRequest({ port, path });
      leave.set(path, () => outgoing.destroy());
      outgoing.on('error', () => {}).end();
    }
    await eventually(() => left.length === 2, patient);
  });

  it('an answer that breaks off looks broken', async () => {
    let breakOff = (): void => {};
    const { url } = await monolith((_, response) => {
      response.writeHead(200, { 'content-length': 100 });
      response.write('half');
      breakOff = () => response.destroy();
    });
    const { url: proxy } = await startToy(ToyRouting.of(url));
    const response = await fetch(proxy);
    breakOff();
    await expect(response.text()).rejects.toThrow();
  });

  it('silence within an answer ends it, events excepted', async () => {
    const { url } = await monolith((request, response) => {
      response.writeHead(200, { 'content-type': request.url === '/events' ? 'text/event-stream' : 'text/plain' });
      response.write('data: 1\n\n');
    });
    const { url: proxy } = await startToy(ToyRouting.of(url), { limits: { requestMs: 150 } });
    // The head comes in time, or it would be another refusal.
    const begun = (path: string) =>
      eventually(async () => {
        const answer = await fetch(proxy + path);
        return answer.status === 200 && answer;
      }, patient);
    const events = (await begun('/events')).body!.getReader();
    await events.read();
    const plain = await begun('/plain');
    await expect(plain.text()).rejects.toThrow();
    // The events had as long, and are still there.
    expect(
      await Promise.race([events.read().catch(() => 'broken'), new Promise((done) => setTimeout(done, 150, 'quiet'))]),
    ).toBe('quiet');
    await events.cancel();
  });

  it('a body that does not come: 408', async () => {
    const upstream = await Recorder.start();
    const { port } = await startToy(ToyRouting.of(upstream.url), { limits: { requestMs: 100 } });
    const answer = await raw(port, 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf', { quietMs: 500 });
    expect(statusesOf(answer)).toEqual([408]);
    expect(upstream.raw).toBe('');
  });
});

describe('HTTP/1.1', () => {
  const through = async (answer: string, request = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n') => {
    const upstream = await Recorder.start(() => answer);
    const { port } = await startToy(ToyRouting.of(upstream.url));
    return { said: await raw(port, request), upstream };
  };

  it('HEAD has the length and no body', async () => {
    const { said } = await through(
      'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n',
      'HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    );
    expect(said).toMatch(/content-length: 500/i);
    expect(said.split('\r\n\r\n')[1]).toBe('');
  });

  it.each([204, 304])('%i has no body', async (status) => {
    const { said } = await through(`HTTP/1.1 ${status} X\r\nETag: "1"\r\n\r\n`);
    expect(statusesOf(said)).toEqual([status]);
    expect(said).toMatch(/etag: "1"/i);
    expect(said.split('\r\n\r\n')[1]).toBe('');
  });

  it('informational answers end here', async () => {
    const { said } = await through(
      'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    );
    expect(statusesOf(said)).toEqual([200]);
  });

  it('cookies stay apart, hop-by-hop headers and trailers of the upstream end here', async () => {
    const { said } = await through(
      'HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: X-Internal\r\nX-Internal: 1\r\n' +
        'Keep-Alive: timeout=9\r\nBanyan-Fenced: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Late: 1\r\n\r\n',
    );
    expect(said.match(/set-cookie: /gi)).toHaveLength(2);
    expect(said).not.toMatch(/x-internal|timeout=9|fenced|x-late/i);
  });

  it('a client of HTTP/1.0 gets no chunks, and its connection is closed', async () => {
    const { said } = await through(
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
      'GET / HTTP/1.0\r\n\r\n',
    );
    expect(said).not.toMatch(/chunked/i);
    expect(said.split('\r\n\r\n')[1]).toBe('ok');
  });

  it('connections to the upstream are used again, and the requests of one client stay in order', async () => {
    const upstream = await Recorder.start();
    const { port } = await startToy(ToyRouting.of(upstream.url));
    const agent = new Agent({ keepAlive: true, maxSockets: 4 });
    onTestFinished(() => agent.destroy());
    await Promise.all(
      Array.from({ length: 200 }, async (_, n) => {
        const [response] = (await once(httpRequest({ port, agent, path: `/${n}` }).end(), 'response')) as [
          IncomingMessage,
        ];
        expect(await whole(response)).toBe('ok');
      }),
    );
    expect(upstream.requests).toHaveLength(200);
    expect(upstream.connections).toBeLessThanOrEqual(8);
  });

  it('a read that meets a closing connection is sent again, once', async () => {
    let closed = 0;
    const upstream = await Recorder.start((_, socket) => {
      if (closed++ === 1) return void socket.destroy();
      return 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';
    });
    const { url } = await startToy(ToyRouting.of(upstream.url));
    expect((await fetch(url)).status).toBe(200);
    expect((await fetch(url)).status).toBe(200);
    expect(upstream.requests).toHaveLength(3);
  });

  it('a command meets no connection that the upstream has closed meanwhile', async () => {
    const upstream = await Recorder.start();
    const { url } = await startToy(ToyRouting.of(upstream.url));
    const command = async () => (await fetch(url, { method: 'POST', body: 'x' })).status;
    expect(await command()).toBe(200);
    for (const leave of ['end', 'destroy', 'resetAndDestroy'] as const) {
      // Both ends are in this process: the proxy learns of it while the next request is on its way to it, or after.
      for (const socket of upstream.sockets) socket[leave]();
      expect(await command()).toBe(200);
    }
    expect([upstream.requests.length, upstream.connections]).toEqual([4, 4]);
  });

  it.each([
    ['another protocol', 'SSH-2.0-OpenSSH\r\n\r\n'],
    ['two lengths', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy'],
    ['a length and chunks', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a length that is none', 'HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx'],
    ['a name with a space', 'HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 1\r\n\r\nx'],
    ['an upgrade that nobody asked for', 'HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'],
    ['an endless head', `HTTP/1.1 200 OK\r\nx: ${'x'.repeat(70_000)}\r\n\r\n`],
  ])('%s is no answer: 502', async (_, answer) => {
    expect(statusesOf((await through(answer)).said)).toEqual([502]);
  });

  it('bytes behind the end of an answer are nobody’s answer', async () => {
    const one = (text: string) => `HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n${text}`;
    const upstream = await Recorder.start(({ line }) => one(line.split(' ')[1]!) + one('/forged'));
    const { url } = await startToy(ToyRouting.of(upstream.url));
    for (const path of ['/a', '/b', '/c']) expect(await (await fetch(url + path)).text()).toBe(path);
  });

  it('the trace goes on, or begins', async () => {
    const upstream = await Recorder.start();
    const { url, lines } = await startToy(ToyRouting.of(upstream.url));
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    await fetch(`${url}/a?token=secret`, { headers: { traceparent } });
    await fetch(`${url}/b`);
    expect(values(upstream.requests[0]!, 'traceparent')).toEqual([traceparent]);
    expect(values(upstream.requests[1]!, 'traceparent')[0]).toMatch(/^00-[\da-f]{32}-[\da-f]{16}-01$/);
    await eventually(() => lines.length === 2);
    expect(JSON.parse(lines[0]!)).toMatchObject({
      traceId: traceparent.slice(3, 35),
      route: '/',
      status: 200,
      side: 'monolith',
    });
    expect(lines.join()).not.toMatch(/secret|\/a\b/);
  });

  it('a proxy in front is believed when it is named, and its list is continued', async () => {
    const upstream = await Recorder.start();
    const { url } = await startToy(ToyRouting.of(upstream.url), { trustedProxies: ['127.0.0.0/8'] });
    await fetch(url, {
      headers: { 'x-forwarded-for': '9.9.9.9', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'shop.example' },
    });
    const [seen] = upstream.requests;
    expect(values(seen!, 'x-forwarded-for')).toEqual(['9.9.9.9, 127.0.0.1']);
    expect(values(seen!, 'x-forwarded-proto')).toEqual(['https']);
    expect(values(seen!, 'x-forwarded-host')).toEqual(['shop.example']);
  });
});

describe('what stays open', () => {
  it('server-sent events come one by one', async () => {
    let send: ((text: string) => void) | undefined;
    const { url } = await monolith((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
      send = (text) => void response.write(text);
    });
    const { url: proxy } = await startToy(ToyRouting.of(url));
    // The head alone arrives: nothing has been sent yet.
    const reader = (await fetch(proxy)).body!.pipeThrough(new TextDecoderStream()).getReader();
    for (const each of ['data: 1\n\n', 'data: 2\n\n']) {
      send!(each);
      expect((await reader.read()).value).toBe(each);
    }
    await reader.cancel();
  });

  const upgrade = (path: string, ...headers: string[]) =>
    [
      ...[`GET ${path} HTTP/1.1`, 'Host: x', 'Connection: Upgrade', 'Upgrade: websocket', ...headers],
      ...['Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13', '', ''],
    ].join('\r\n');

  it('websockets', async () => {
    const { server, url } = await monolith((_, response) => void response.writeHead(404).end());
    let seen: IncomingMessage | undefined;
    let theirs: Socket | undefined;
    server.on('upgrade', (request: IncomingMessage, socket: Socket) => {
      if (request.url !== '/v1/orders/live')
        return void socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno');
      [seen, theirs] = [request, socket];
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n\r\nfirst',
      );
      socket.on('data', (chunk) => socket.write(`heard ${String(chunk)}`)).on('error', () => {});
    });
    const { port } = await startToy(ToyRouting.of(url));
    const socket = connect(port, '127.0.0.1');
    onTestFinished(() => void socket.destroy());
    let heard = '';
    socket.on('data', (chunk) => (heard += String(chunk)));
    socket.write(upgrade('/v1/orders/live', 'X-User-Id: admin'));
    await eventually(() => heard.endsWith('first'));
    expect(heard).toMatch(/^HTTP\/1.1 101 .*sec-websocket-accept: yes/is);
    socket.write('hello');
    await eventually(() => heard.endsWith('heard hello'));
    expect(seen!.headers['x-user-id']).toBeUndefined();
    expect(seen!.headers['x-forwarded-for']).toBe('127.0.0.1');
    socket.destroy();
    await eventually(() => theirs!.destroyed || theirs!.readableEnded);
    expect(statusesOf(await raw(port, upgrade('/elsewhere')))).toEqual([401]);
  });

  it('bytes sent before the upstream has agreed to an upgrade are no request of their own', async () => {
    const upstream = await Recorder.start(() => 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno');
    const { port } = await startToy(ToyRouting.of(upstream.url));
    const answer = await raw(port, `${upgrade('/ws')}GET /admin HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect(statusesOf(answer)).toEqual([200]);
    expect(upstream.raw).not.toContain('/admin');
  });
});

/** Tells for how long, at most, nothing could be done in this process, ms. */
function watchForDelay(): () => number {
  let [last, most] = [performance.now(), 0];
  const look = () => {
    const now = performance.now();
    [last, most] = [now, Math.max(most, now - last)];
  };
  const timer = setInterval(look, 10);
  onTestFinished(() => clearInterval(timer));
  return () => (look(), most);
}

describe('when it is asked to stop', () => {
  it('what runs is finished, clients are told to go, and none of their requests fails', async () => {
    const { url } = await monolith((_, response) => void setTimeout(() => response.end('ok'), 30));
    // While it is held up itself for half a second, the proxy cannot hear that a client has begun.
    const { failures, port } = await eventually(async () => {
      const heldUp = watchForDelay();
      const { proxy, port } = await startToy(ToyRouting.of(url), { limits: { drainMs: 20_000 } });
      let answered = 0;
      /** As a browser does it: one connection, until it is told to close. */
      const client = async (): Promise<string[]> => {
        const failures: string[] = [];
        const socket: Socket = connect(port, '127.0.0.1');
        socket.on('error', (error) => failures.push(error.message));
        await once(socket, 'connect');
        for (;;) {
          socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
          const [chunk] = (await Promise.race([once(socket, 'data'), once(socket, 'close').then(() => [''])])) as [
            Buffer | string,
          ];
          const answer = String(chunk);
          if (!answer.startsWith('HTTP/1.1 200')) {
            failures.push(answer || 'closed without an answer');
            break;
          }
          answered += 1;
          if (/connection: close/i.test(answer)) break;
        }
        socket.destroy();
        return failures;
      };
      const clients = Array.from({ length: 20 }, client);
      await eventually(() => answered > 40, patient);
      await proxy.close();
      const failures = (await Promise.all(clients)).flat();
      return heldUp() < 250 && { failures, port };
    }, patient);
    expect(failures).toEqual([]);
    await expect(fetch(`http://127.0.0.1:${port}`)).rejects.toThrow();
  });

  it('what does not end is cut off', async () => {
    const { url } = await monolith((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
    });
    const { proxy, url: address } = await startToy(ToyRouting.of(url), { limits: { drainMs: 100 } });
    const response = await fetch(address);
    await proxy.close();
    await expect(response.text()).rejects.toThrow();
  });
});
