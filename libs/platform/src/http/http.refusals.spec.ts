import { describe, expect, it } from 'vitest';
import { encodeCursor } from './index.js';
import { id, keyed, post, thingsApp } from './things.spec-support.js';

const things = thingsApp();
const { problem, raw } = things;
const hasty = thingsApp({ requestTimeoutMs: 200 });

describe('invalid input is 400 with a pointer to each fault', () => {
  it.each<[string, string, RequestInit, unknown[]]>([
    ['an unknown field', '/v1/things', post({ name: 'a', extra: 1 }), ['/extra']],
    ['a nested field, escaped', '/v1/things', post({ name: 'a', parts: [{ 'a/b': 'x' }] }), ['/parts/0/a~1b']],
    ['several at once', '/v1/things', post({ name: '', parts: 1 }), ['/name', '/parts']],
    ['an object where text is due', '/v1/things', post({ name: { not: '' } }), ['/name']],
    ['no body', '/v1/things', { method: 'POST', headers: keyed }, ['']],
    ['limit 0', '/v1/things?limit=0', {}, ['/limit']],
    ['limit 101', '/v1/things?limit=101', {}, ['/limit']],
    ['limit given twice', '/v1/things?limit=1&limit=2', {}, ['/limit']],
    ['an unknown parameter', '/v1/things?a=1', {}, ['/a']],
    ['a malformed id', '/v1/things/17', {}, ['/id']],
    ['an edited cursor', `/v1/things?cursor=x${encodeCursor([1])}`, {}, ['/cursor']],
    ['a cursor of another list', `/v1/things?cursor=${encodeCursor(['b'])}`, {}, ['/cursor']],
  ])('%s', async (_, path, init, pointers) => {
    const { status, errors } = await problem(path, init);
    expect(status).toBe(400);
    expect((errors as { pointer: string }[]).map((each) => each.pointer)).toEqual(pointers);
  });

  it('a page leads to the next by its cursor', async () => {
    const first = (await (await fetch(`${things.base}/v1/things?limit=5`)).json()) as { nextCursor: string };
    const second = (await (await fetch(`${things.base}/v1/things?cursor=${first.nextCursor}`)).json()) as {
      nextCursor: string;
    };
    expect(second.nextCursor).toBe(encodeCursor([25]));
  });
});

describe('what cannot be read is refused with the right status', () => {
  const deep = (levels: number) => `{"name":${'['.repeat(levels)}${']'.repeat(levels)}}`;
  it.each<[string, number, string, string, RequestInit]>([
    ['malformed JSON', 400, 'MALFORMED_JSON', '/v1/things', post('{"name":')],
    ['a __proto__ key', 400, 'MALFORMED_JSON', '/v1/things', post('{"name":"a","__proto__":{"x":1}}')],
    ['an escaped __proto__ key', 400, 'MALFORMED_JSON', '/v1/things', post('{"\\u005f_proto__":{"x":1}}')],
    ['a constructor.prototype key', 400, 'MALFORMED_JSON', '/v1/things', post('{"constructor":{"prototype":{}}}')],
    ['NUL in text', 400, 'MALFORMED_JSON', '/v1/things', post('{"name":"a\\u0000"}')],
    ['half a surrogate pair in text', 400, 'MALFORMED_JSON', '/v1/things', post('{"name":"a\\ud800"}')],
    ['JSON of 40 levels', 400, 'JSON_TOO_DEEP', '/v1/things', post(deep(40))],
    ['JSON of 400,000 levels', 400, 'JSON_TOO_DEEP', '/v1/things', post(deep(400_000))],
    ['2 MB', 413, 'BODY_TOO_LARGE', '/v1/things', post({ name: 'x'.repeat(2_000_000) })],
    ['text', 415, 'UNSUPPORTED_MEDIA_TYPE', '/v1/things', post('a', { 'content-type': 'text/plain' })],
    [
      'a form',
      415,
      'UNSUPPORTED_MEDIA_TYPE',
      '/v1/things',
      post('a=b', { 'content-type': 'application/x-www-form-urlencoded' }),
    ],
    [
      'NDJSON where JSON is due',
      415,
      'UNSUPPORTED_MEDIA_TYPE',
      '/v1/things',
      post('{}', { ...keyed, 'content-type': 'application/x-ndjson' }),
    ],
    [
      'a compressed body',
      415,
      'UNSUPPORTED_ENCODING',
      '/v1/things',
      post('x', { ...keyed, 'content-encoding': 'gzip' }),
    ],
    ['an unknown path', 404, 'ROUTE_NOT_FOUND', '/v1/nothing', {}],
    ['a doubled slash', 404, 'ROUTE_NOT_FOUND', '//v1/things', {}],
    ['NUL in the path', 400, 'MALFORMED_REQUEST', '/v1/things/%00', {}],
    ['a malformed escape', 400, 'MALFORMED_REQUEST', '/v1/things/%zz', {}],
    ['an endless path part', 414, 'URI_TOO_LONG', `/v1/things/${'x'.repeat(300)}`, {}],
  ])('%s: %i', async (_, status, code, path, init) => {
    expect(await problem(path, init)).toMatchObject({ status, code });
  });

  it('another method: 405 with Allow', async () => {
    const { status, code, headers } = await problem(`/v1/things/${id}`, { method: 'DELETE' });
    expect({ status, code, allow: headers.get('allow') }).toEqual({
      status: 405,
      code: 'METHOD_NOT_ALLOWED',
      allow: 'GET, HEAD, PATCH',
    });
  });

  it.each([
    ['two Hosts', 'GET /v1/things HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n'],
    [
      'two Authorizations',
      'GET /v1/things HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nAuthorization: b\r\nConnection: close\r\n\r\n',
    ],
    ['an absolute target', 'GET http://b/v1/things HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
    [
      'gzip as transfer coding',
      'POST /v1/things HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n',
    ],
    [
      'length and chunks',
      'POST /v1/things HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['no Host', 'GET /v1/things HTTP/1.1\r\nConnection: close\r\n\r\n'],
    ['not HTTP', 'hello\r\n\r\n'],
    ['201 headers', `GET /v1/things HTTP/1.1\r\nHost: a\r\n${'X: 1\r\n'.repeat(200)}Connection: close\r\n\r\n`],
  ])('%s: 400', async (_, bytes) => {
    expect(await raw(bytes)).toMatch(/^HTTP\/1.1 400 /);
  });

  it('headers over 16 KB: 431', async () => {
    expect(await raw(`GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`)).toMatch(
      /^HTTP\/1.1 431 [\s\S]*HEADERS_TOO_LARGE/,
    );
  });

  it('a body that stalls: 408', async () => {
    const answer = await hasty.raw(
      'POST /v1/things HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{',
    );
    expect(answer).toMatch(/^HTTP\/1.1 408 [\s\S]*REQUEST_TIMEOUT/);
  });

  it('Upgrade: h2c is answered as plain HTTP', async () => {
    expect(
      await raw('GET /v1/things HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n'),
    ).toMatch(/^HTTP\/1.1 200 /);
  });
});
