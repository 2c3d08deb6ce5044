import { eventually } from '@banyan/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { Recorder, raw, statusesOf, values } from './recorder.js';
import { ToyRouting, startToy } from './toy.js';

/*
 * What an attacker sends, byte by byte, and what reached the upstream, byte by byte. After each refusal a well-behaved
 * request is made on a new connection: the proxy must still be there, and the upstream must not have kept anything.
 */

let upstream: Recorder;
let port: number;

beforeEach(async () => {
  upstream = await Recorder.start();
  const toy = await startToy(ToyRouting.of(upstream.url, { inventory: {} }));
  port = toy.port;
});

const get = (path: string, ...headers: string[]): string =>
  ['GET ' + path + ' HTTP/1.1', 'Host: shop.example', ...headers, '', ''].join('\r\n');
const post = (headers: string[], body: string): string =>
  ['POST /v1/stock/7 HTTP/1.1', 'Host: shop.example', ...headers, '', ''].join('\r\n') + body;

async function stillServes(): Promise<void> {
  const seen = upstream.requests.length;
  const answer = await raw(port, get('/v1/stock/ok', 'Connection: close'));
  expect(statusesOf(answer)).toEqual([200]);
  expect(upstream.requests.slice(seen).map(({ line }) => line)).toEqual(['GET /v1/stock/ok HTTP/1.1']);
}

const smuggled = 'GET /admin HTTP/1.1\r\nHost: shop.example\r\n\r\n';

describe('refused, and nothing of it reaches the upstream', () => {
  const chunkedBody = `0\r\n\r\n${smuggled}`;
  const cases: Record<string, string> = {
    'CL.TE smuggling': post(['Content-Length: 6', 'Transfer-Encoding: chunked'], chunkedBody),
    'TE.CL smuggling': post(['Transfer-Encoding: chunked', 'Content-Length: 3'], chunkedBody),
    'TE.TE smuggling with a second, unknown coding': post(
      ['Transfer-Encoding: chunked', 'Transfer-Encoding: x'],
      chunkedBody,
    ),
    'Transfer-Encoding given twice': post(['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'], chunkedBody),
    'Transfer-Encoding: gzip, chunked': post(['Transfer-Encoding: gzip, chunked'], chunkedBody),
    'Transfer-Encoding: identity': post(['Transfer-Encoding: identity', 'Content-Length: 2'], 'hi'),
    'Transfer-Encoding with a vertical tab': post(['Transfer-Encoding:\x0bchunked'], chunkedBody),
    'a space before the colon': post(['Transfer-Encoding : chunked'], chunkedBody),
    'two Content-Length': post(['Content-Length: 2', 'Content-Length: 4'], 'hihi'),
    'two equal Content-Length': post(['Content-Length: 2', 'Content-Length: 2'], 'hi'),
    'a list as Content-Length': post(['Content-Length: 2, 2'], 'hi'),
    'Content-Length: +2': post(['Content-Length: +2'], 'hi'),
    'Content-Length: -1': post(['Content-Length: -1'], ''),
    'Content-Length: 0x2': post(['Content-Length: 0x2'], 'hi'),
    'a Content-Length that overflows': post(['Content-Length: 18446744073709551617'], 'h'),
    'two Host headers': get('/v1/stock/7', 'Host: other.example'),
    'no Host header': 'GET /v1/stock/7 HTTP/1.1\r\n\r\n',
    'a Host with a path in it': 'GET / HTTP/1.1\r\nHost: shop.example/admin\r\n\r\n',
    'a Host with credentials in it': 'GET / HTTP/1.1\r\nHost: a@shop.example\r\n\r\n',
    'an absolute-form target': 'GET http://other.example/v1/stock/7 HTTP/1.1\r\nHost: shop.example\r\n\r\n',
    'a target without a slash': 'GET v1/stock HTTP/1.1\r\nHost: shop.example\r\n\r\n',
    'the asterisk': 'OPTIONS * HTTP/1.1\r\nHost: shop.example\r\n\r\n',
    'a folded header': get('/v1/stock/7', 'X-Folded: a', ' b: c'),
    'line ends without carriage return': 'GET /v1/stock/7 HTTP/1.1\nHost: shop.example\n\n',
    'a carriage return alone':
      'GET /v1/stock/7 HTTP/1.1\r\nHost: shop.example\r\nX-A: b\rTransfer-Encoding: chunked\r\n\r\n',
    'NUL in a header': get('/v1/stock/7', 'X-Nul: a\0b'),
    'NUL in the path': get('/v1/stock/7\0'),
    'an escaped NUL': get('/v1/stock/%00'),
    'a header name with a space': get('/v1/stock/7', 'X Bad: 1'),
    'a header without a name': get('/v1/stock/7', ': 1'),
    'two Authorization headers': get('/v1/stock/7', 'Authorization: Bearer a', 'Authorization: Bearer b'),
    'two Idempotency-Keys': post(['Idempotency-Key: a', 'Idempotency-Key: b', 'Content-Length: 0'], ''),
    'more than a thousand headers': get('/', ...Array.from({ length: 1_001 }, (_, n) => `A${n}: 1`)),
    'a head of more than 16 KiB': get('/', `X-Large: ${'x'.repeat(20_000)}`),
    'a path of more than 16 KiB': get(`/${'x'.repeat(20_000)}`),
    'dot segments': get('/public/../v1/stock/7'),
    'escaped dot segments': get('/public/%2e%2e/v1/stock/7'),
    'half escaped dot segments': get('/public/.%2E/v1/stock/7'),
    'a dot segment with a parameter': get('/public/..;a=b/v1/stock/7'),
    'an empty segment': get('//v1/stock/7'),
    'a backslash': get('/v1\\stock\\7'),
    'an escaped backslash': get('/v1%5cstock%5c7'),
    'an escaped slash': get('/v1%2Fstock%2F7'),
    'an escape of an escape': get('/v1/%2573tock/7'),
    'a broken escape': get('/v1/stock/%zz'),
    'a fragment': get('/v1/stock/7#x'),
    'bytes outside of ASCII': get('/v1/st\xf6ck'),
    'an escaped line end': get('/v1/stock/7%0d%0aX-Injected:%201'),
    CONNECT: 'CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n',
    TRACE: 'TRACE /v1/stock/7 HTTP/1.1\r\nHost: shop.example\r\n\r\n',
    'an unknown method': 'G\xcbT /v1/stock/7 HTTP/1.1\r\nHost: shop.example\r\n\r\n',
    'a method of nobody': 'STEAL /v1/stock/7 HTTP/1.1\r\nHost: shop.example\r\n\r\n',
    'HTTP/0.9': 'GET /v1/stock/7\r\n\r\n',
    'HTTP/3.7': 'GET /v1/stock/7 HTTP/3.7\r\nHost: shop.example\r\n\r\n',
    'the preface of HTTP/2': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'a TLS greeting': '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
    'a chunked body of HTTP/1.0': 'POST /v1/stock/7 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'Connection that names the length': post(['Connection: content-length', 'Content-Length: 2'], 'hi'),
    'Connection that names the host': get('/v1/stock/7', 'Connection: host'),
    'Connection that names the key': post(
      ['Connection: idempotency-key', 'Idempotency-Key: a', 'Content-Length: 0'],
      '',
    ),
    'an expectation of something else': post(['Expect: 200-maybe', 'Content-Length: 2'], 'hi'),
    'a declared body above the cap': post(['Content-Length: 99999999'], 'x'),
  };
  it.each(Object.entries(cases))('%s', async (_, bytes) => {
    const answer = await raw(port, bytes);
    // Every answer is a refusal, there is one at most, and the connection is no longer used.
    expect(statusesOf(answer).length).toBeLessThanOrEqual(1);
    for (const status of statusesOf(answer)) expect([400, 405, 408, 413, 417, 431]).toContain(status);
    expect(upstream.raw).toBe('');
    await stillServes();
  });

  it.each(
    Object.entries({
      'a chunk size that is no number': 'zz\r\nhi\r\n0\r\n\r\n',
      'a negative chunk size': '-2\r\nhi\r\n0\r\n\r\n',
      'a chunk size that overflows': 'ffffffffffffffff1\r\nhi\r\n0\r\n\r\n',
      'a chunk that is longer than it says': '2\r\nhijack\r\n0\r\n\r\n',
      'chunks that end without carriage return': '2\nhi\n0\n\n',
      'a chunk extension with a line end in it': `2;a=\nb\r\nhi\r\n0\r\n\r\n`,
    }),
  )('%s: the upstream never sees an end of the body', async (_, body) => {
    const answer = await raw(port, post(['Transfer-Encoding: chunked'], body + smuggled));
    for (const status of statusesOf(answer)) expect([400, 413]).toContain(status);
    expect(upstream.requests).toEqual([]);
    expect(upstream.raw).not.toContain('/admin');
    await stillServes();
  });

  it('a body that ends early: no command reaches the upstream', async () => {
    await raw(port, post(['Content-Length: 100'], 'half'), { end: true });
    await stillServes();
    expect(upstream.raw).not.toContain('half');
  });

  it('a chunked body that ends early: the upstream never sees its end', async () => {
    await raw(port, post(['Transfer-Encoding: chunked'], '4\r\nhalf\r\n'), { end: true });
    expect(upstream.requests).toEqual([]);
    await stillServes();
  });
});

describe('passed on without what makes it dangerous', () => {
  const passed = async (bytes: string) => {
    const answer = await raw(port, bytes);
    await eventually(() => upstream.requests.length === 1);
    return { request: upstream.requests[0]!, answer };
  };

  it('a forged identity, in every spelling', async () => {
    const names = ['X-User-Id', 'x_user_id', 'X-Actor', 'X-Roles', 'X-Role', 'X_Roles', 'X-Remote-User', 'Remote-User'];
    const { request } = await passed(get('/v1/stock/7', ...names.map((name) => `${name}: admin`)));
    expect(request.head.toLowerCase()).not.toContain('admin');
    expect(request.headers.filter(([name]) => name.includes('_'))).toEqual([]);
  });

  it('forged addresses: said by the proxy alone', async () => {
    const { request } = await passed(
      get(
        ...(['/v1/stock/7', 'X-Forwarded-For: 6.6.6.6', 'x_forwarded_for: 6.6.6.6', 'Forwarded: for=6.6.6.6'] as const),
        ...['X-Real-IP: 6.6.6.6', 'X-Forwarded-Proto: https', 'X-Forwarded-Host: evil', 'X-Original-URL: /admin'],
      ),
    );
    expect(request.head).not.toMatch(/6\.6\.6\.6|evil|admin/);
    expect(values(request, 'x-forwarded-for')).toEqual(['127.0.0.1']);
    expect(values(request, 'x-forwarded-proto')).toEqual(['http']);
    expect(values(request, 'x-forwarded-host')).toEqual(['shop.example']);
    expect(values(request, 'forwarded')).toEqual(['for=127.0.0.1;host="shop.example";proto=http']);
  });

  it("orders between routers and apps: a client's are dropped", async () => {
    const names = ['Banyan-Placement', 'Banyan-Behind', 'Banyan-Fenced', 'Banyan-Served-By', 'banyan_placement'];
    const { request } = await passed(get('/v1/stock/7', ...names.map((name) => `${name}: inventory=service`)));
    expect(request.head.toLowerCase()).not.toContain('inventory=service');
  });

  it('Connection cannot take away what the proxy adds', async () => {
    const { request } = await passed(
      get('/v1/stock/7', 'Connection: keep-alive, X-Forwarded-For, Forwarded, traceparent', 'X-Forwarded-For: 6.6.6.6'),
    );
    expect(values(request, 'x-forwarded-for')).toEqual(['127.0.0.1']);
    expect(values(request, 'traceparent')).toHaveLength(1);
    expect(values(request, 'forwarded')).toHaveLength(1);
  });

  it('Connection that names Authorization: the request goes on without it, and nobody is taken for somebody', async () => {
    const { request } = await passed(get('/v1/stock/7', 'Connection: authorization', 'Authorization: Bearer a'));
    expect(values(request, 'authorization')).toEqual([]);
  });

  it('hop-by-hop headers stay on their hop', async () => {
    const { request } = await passed(
      get(
        ...(['/v1/stock/7', 'Connection: X-Secret, keep-alive', 'X-Secret: 1', 'Keep-Alive: timeout=99'] as const),
        ...['TE: trailers', 'Trailer: X-Late', 'Proxy-Connection: keep-alive', 'Proxy-Authorization: Basic eDp5'],
      ),
    );
    for (const name of [
      'x-secret',
      'keep-alive',
      'te',
      'trailer',
      'proxy-connection',
      'proxy-authorization',
      'upgrade',
    ])
      expect(values(request, name)).toEqual([]);
  });

  it('Upgrade: h2c gets a plain answer', async () => {
    const { request, answer } = await passed(
      get(
        '/v1/stock/7',
        'Connection: Upgrade, HTTP2-Settings',
        'Upgrade: h2c',
        'HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA',
      ),
    );
    expect(statusesOf(answer)).toEqual([200]);
    for (const name of ['upgrade', 'http2-settings']) expect(values(request, name)).toEqual([]);
  });

  it('an upgrade to something unknown gets a plain answer', async () => {
    const { request, answer } = await passed(get('/v1/stock/7', 'Connection: Upgrade', 'Upgrade: TLS/1.0'));
    expect(statusesOf(answer)).toEqual([200]);
    expect(values(request, 'upgrade')).toEqual([]);
  });

  it('chunk extensions and trailers end here', async () => {
    const { request } = await passed(
      post(
        ['Transfer-Encoding: chunked', 'Trailer: Authorization'],
        '2;x="y"\r\nhi\r\n0\r\nAuthorization: Bearer a\r\n\r\n',
      ),
    );
    expect(request.body).toBe('hi');
    expect(upstream.raw).not.toMatch(/x="y"|Bearer/);
  });

  it('a request hidden in a correct body stays a body', async () => {
    const { request, answer } = await passed(post([`Content-Length: ${smuggled.length}`], smuggled));
    expect(request.body).toBe(smuggled);
    expect(statusesOf(answer)).toEqual([200]);
  });

  it('Expect: 100-continue is answered here and not passed on', async () => {
    const { request, answer } = await passed(post(['Expect: 100-continue', 'Content-Length: 2'], 'hi'));
    expect(values(request, 'expect')).toEqual([]);
    expect(statusesOf(answer)).toEqual([100, 200]);
  });

  it('a bomb of ranges', async () => {
    const ranges = Array.from({ length: 500 }, (_, n) => `${n}-`).join(',');
    const { request } = await passed(get('/v1/stock/7', `Range: bytes=${ranges}`));
    expect(values(request, 'range')).toEqual([]);
  });

  it('a read that wants to be a write', async () => {
    const { request } = await passed(get('/v1/stock/7', 'X-HTTP-Method-Override: DELETE'));
    expect(values(request, 'x-http-method-override')).toEqual([]);
  });

  it('escapes of plain letters: what is routed is what is sent', async () => {
    const { request } = await passed(get('/v1/%73tock/%41?x=%2e%2e'));
    expect(request.line).toBe('GET /v1/stock/A?x=%2e%2e HTTP/1.1');
  });

  it('two requests at once stay two', async () => {
    const answer = await raw(port, get('/v1/stock/1') + get('/v1/stock/2', 'Connection: close'));
    expect(statusesOf(answer)).toEqual([200, 200]);
    expect(upstream.requests.map(({ line }) => line).sort()).toEqual([
      'GET /v1/stock/1 HTTP/1.1',
      'GET /v1/stock/2 HTTP/1.1',
    ]);
  });

  it('a traceparent that is none begins a new trace', async () => {
    const { request } = await passed(get('/v1/stock/7', 'traceparent: 00-zz-01'));
    expect(values(request, 'traceparent')[0]).toMatch(/^00-[\da-f]{32}-[\da-f]{16}-01$/);
  });
});
