import { connect } from 'node:net';
import { Body, Controller, Get, Ip, Module, Param, Patch, Post, Query, RawBody } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { DomainError } from '@banyan/kernel';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { loadConfig } from '../config/index.js';
import {
  Answers,
  IdempotencyKey,
  IfMatch,
  Page,
  PageQuery,
  createHttpApp,
  decodeCursor,
  encodeCursor,
  routesOf,
} from './index.js';

const Thing = z.strictObject({ id: z.uuid(), name: z.string(), version: z.int() }).meta({ id: 'Thing' });
const NewThing = z.strictObject({
  name: z.string().min(1),
  parts: z.array(z.strictObject({ 'a/b': z.int() })).default([]),
});
const IdParam = z.strictObject({ id: z.uuid() });
const id = '0199d0a0-0000-7000-8000-000000000001';

@Controller('v1/things')
class ThingsController {
  @Get()
  @Answers(200, Page(Thing))
  list(@Query({ schema: PageQuery }) { limit, cursor }: z.output<typeof PageQuery>) {
    const after = decodeCursor(cursor, z.tuple([z.int()]))?.[0] ?? 0;
    return { items: [], nextCursor: encodeCursor([after + limit]) };
  }

  @Get('fails/:how')
  @Answers(200)
  fails(@Param({ schema: z.strictObject({ how: z.string() }) }) { how }: { how: string }) {
    if (how === 'database')
      throw Object.assign(new Error('P1001'), { cause: Object.assign(new Error('connect'), { code: 'ECONNREFUSED' }) });
    if (how === 'conflict') throw new DomainError('OUT_OF_STOCK', 'conflict', 'Only 3 left', { sku: 'a-1' });
    if (how === 'later') throw new DomainError('BUSY', 'unavailable', 'Moving house', { retryAfterMs: 1_500 });
    throw new Error('the password is hunter2');
  }

  @Get('unchecked')
  @Answers(200)
  unchecked(@Query() query: unknown) {
    return query;
  }

  @Get(':id')
  @Answers(200, Thing, { etag: true })
  one(@Param({ schema: IdParam }) params: z.output<typeof IdParam>) {
    return { id: params.id, name: 'x', version: 3 };
  }

  @Post()
  @Answers(201)
  create(@IdempotencyKey() key: string, @Body({ schema: NewThing }) body: z.output<typeof NewThing>, @Ip() ip: string) {
    return { key, body, ip };
  }

  @Post('maybe')
  @Answers(200)
  maybe(@IdempotencyKey({ optional: true }) key: string | undefined) {
    return { key: key ?? null };
  }

  @Patch(':id')
  @Answers(200, Thing, { etag: true })
  change(@Param({ schema: IdParam }) params: z.output<typeof IdParam>, @IfMatch() version: number) {
    return { id: params.id, name: 'y', version: version + 1 };
  }

  @Post('signed')
  @Answers(200)
  signed(@RawBody() raw: Buffer) {
    return { raw: raw.toString() };
  }
}

@Module({ controllers: [ThingsController] })
class ThingsModule {}

let app: NestFastifyApplication;
let base: string;
let port: number;
const scopes: string[] = [];

beforeAll(async () => {
  const config = loadConfig({ BANYAN_REQUEST_TIMEOUT_MS: '200', LOG_LEVEL: 'silent' });
  app = await createHttpApp(ThingsModule, config, {
    logger: false,
    requestScope: (request, actor, next) => {
      scopes.push(`${request.method} ${actor.kind}`);
      return next();
    },
    answerFacts: () => ({ replayed: true, consistency: 'c-1' }),
  });
  await app.listen(0, '127.0.0.1');
  port = (app.getHttpServer().address() as { port: number }).port;
  base = `http://127.0.0.1:${port}`;
});
afterAll(async () => {
  await app.close();
});

const json = { 'content-type': 'application/json' };
const keyed = { ...json, 'idempotency-key': 'k-1' };

async function problem(path: string, init: RequestInit = {}) {
  const response = await fetch(base + path, init);
  expect(response.headers.get('content-type')).toBe('application/problem+json');
  const body = (await response.json()) as Record<string, unknown>;
  expect(body).toMatchObject({ status: response.status, type: expect.stringMatching(/^urn:banyan:problem:/) });
  expect(body['traceId']).toMatch(/^[0-9a-f]{32}$/);
  expect(Object.keys(body)).toEqual(expect.arrayContaining(['title', 'detail', 'code']));
  return { status: response.status, code: body['code'], errors: body['errors'], body, headers: response.headers };
}
const post = (body: unknown, headers: Record<string, string> = keyed): RequestInit => ({
  method: 'POST',
  headers,
  body: typeof body === 'string' ? body : JSON.stringify(body),
});

/** Sends bytes as they are and reads until the server closes: what fetch would never send. */
const raw = (bytes: string): Promise<string> =>
  new Promise((done, failed) => {
    let text = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    socket.on('data', (chunk) => (text += chunk.toString()));
    socket.on('close', () => done(text)).on('error', failed);
  });

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
    const first = (await (await fetch(`${base}/v1/things?limit=5`)).json()) as { nextCursor: string };
    const second = (await (await fetch(`${base}/v1/things?cursor=${first.nextCursor}`)).json()) as {
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
    const answer = await raw(
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

describe('failures inside a handler', () => {
  it('an error of the language keeps its code and facts', async () => {
    const { status, code, body } = await problem('/v1/things/fails/conflict');
    expect({ status, code, title: body['title'], data: body['data'] }).toEqual({
      status: 409,
      code: 'OUT_OF_STOCK',
      title: 'Out of stock',
      data: { sku: 'a-1' },
    });
  });
  it('a database that is gone: 503 with Retry-After', async () => {
    const { status, code, headers } = await problem('/v1/things/fails/database');
    expect({ status, code, after: headers.get('retry-after') }).toEqual({
      status: 503,
      code: 'DATABASE_UNAVAILABLE',
      after: '1',
    });
  });
  it('Retry-After is what the error says, in whole seconds', async () => {
    expect((await problem('/v1/things/fails/later')).headers.get('retry-after')).toBe('2');
  });
  it('anything else: 500 that says nothing', async () => {
    const { status, body } = await problem('/v1/things/fails/otherwise');
    expect(status).toBe(500);
    expect(JSON.stringify(body)).not.toContain('hunter2');
  });
  it('a handler that reads input without a schema: 500', async () => {
    expect((await problem('/v1/things/unchecked')).status).toBe(500);
  });
});

describe('conditional requests', () => {
  const url = `/v1/things/${id}`;
  it('a GET carries the ETag, and 304 follows from If-None-Match', async () => {
    const first = await fetch(base + url);
    expect(first.headers.get('etag')).toBe('"3"');
    for (const tag of ['"3"', 'W/"3"', '"1", "3"', '*']) {
      const again = await fetch(base + url, { headers: { 'if-none-match': tag } });
      expect([again.status, await again.text(), again.headers.get('etag')]).toEqual([304, '', '"3"']);
    }
    expect((await fetch(base + url, { headers: { 'if-none-match': '"2"' } })).status).toBe(200);
  });
  it.each([
    ['"3"', 200],
    ['W/"3"', 200],
    ['3', 400],
    ['*', 400],
    ['"0"', 400],
    ['"3", "4"', 400],
    ['"x"', 400],
    [undefined, 428],
  ])('If-Match %s: %i', async (tag, status) => {
    const response = await fetch(base + url, {
      method: 'PATCH',
      headers: tag === undefined ? {} : { 'if-match': tag },
    });
    expect(response.status).toBe(status);
    if (status === 200) expect(response.headers.get('etag')).toBe('"4"');
  });
});

describe('idempotency keys', () => {
  it.each<[string, string | undefined, string]>([
    ['missing', undefined, 'IDEMPOTENCY_KEY_REQUIRED'],
    ['empty', '', 'IDEMPOTENCY_KEY_INVALID'],
    ['with a space', 'a b', 'IDEMPOTENCY_KEY_INVALID'],
    ['of 256 characters', 'k'.repeat(256), 'IDEMPOTENCY_KEY_INVALID'],
  ])('%s: 400', async (_, key, code) => {
    const headers = key === undefined ? json : { ...json, 'idempotency-key': key };
    expect(await problem('/v1/things', post({ name: 'a' }, headers))).toMatchObject({ status: 400, code });
  });
  it('of 255 characters reaches the handler; an optional one may be missing', async () => {
    const key = 'k'.repeat(255);
    const created = await fetch(`${base}/v1/things`, post({ name: 'a' }, { ...json, 'idempotency-key': key }));
    expect([created.status, await created.json()]).toEqual([
      201,
      { key, body: { name: 'a', parts: [] }, ip: '127.0.0.1' },
    ]);
    expect(await (await fetch(`${base}/v1/things/maybe`, { method: 'POST', headers: json })).json()).toEqual({
      key: null,
    });
  });
});

describe('answers', () => {
  it('carry security headers, who served them, and what the call learned', async () => {
    const { headers } = await fetch(`${base}/v1/things`);
    expect(Object.fromEntries(headers)).toMatchObject({
      'banyan-served-by': 'monolith',
      'banyan-consistency': 'c-1',
      'idempotent-replayed': 'true',
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none';frame-ancestors 'none'",
      'cache-control': 'no-cache',
    });
    expect(scopes).toContain('GET anonymous');
    const authenticated = await fetch(`${base}/v1/things`, { headers: { authorization: 'Bearer x' } });
    expect(authenticated.headers.get('cache-control')).toBe('no-store');
    const refused = await fetch(`${base}/nothing`);
    expect(refused.headers.get('x-content-type-options')).toBe('nosniff');
    expect(refused.headers.get('banyan-served-by')).toBe('monolith');
  });
  it('a HEAD is a GET without the body', async () => {
    const response = await fetch(`${base}/v1/things/${id}`, { method: 'HEAD' });
    expect([response.status, response.headers.get('etag'), await response.text()]).toEqual([200, '"3"', '']);
  });
  it('the bytes of a body stay readable, as sent', async () => {
    const text = '{ "a" :\n1 }';
    expect(await (await fetch(`${base}/v1/things/signed`, post(text))).json()).toEqual({ raw: text });
  });
});

describe('the description', () => {
  interface Operation {
    parameters?: { name: string; in: string; required?: boolean }[];
    responses: Record<string, { content?: Record<string, { schema: unknown }> }>;
  }
  it('is OpenAPI 3.1 with schemas, headers and problems', async () => {
    const response = await fetch(`${base}/openapi.json`);
    const document = (await response.json()) as {
      openapi: string;
      paths: Record<string, Record<string, Operation>>;
      components: { schemas: Record<string, unknown>; securitySchemes: unknown };
    };
    expect(document.openapi).toBe('3.1.0');
    const create = document.paths['/v1/things']?.['post'];
    expect(create?.parameters).toContainEqual(
      expect.objectContaining({ name: 'Idempotency-Key', in: 'header', required: true }),
    );
    expect(document.paths['/v1/things/{id}']?.['patch']?.parameters).toContainEqual(
      expect.objectContaining({ name: 'If-Match', required: true }),
    );
    expect(document.paths['/v1/things']?.['get']?.parameters?.map((each) => each.name)).toEqual(['limit', 'cursor']);
    expect(document.paths['/v1/things/{id}']?.['get']?.responses['200']?.content?.['application/json']?.schema).toEqual(
      { $ref: '#/components/schemas/Thing' },
    );
    expect(document.components.schemas).toHaveProperty('Thing');
    expect(create?.responses['400']?.content).toEqual({
      'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
    });
    const references = JSON.stringify(document).matchAll(/#\/components\/schemas\/(\w+)/g);
    for (const [, name] of references) expect(document.components.schemas).toHaveProperty(name as string);
  });
  it('has a reference page that loads from here only', async () => {
    const page = await fetch(`${base}/docs`);
    expect(page.headers.get('content-security-policy')).toContain("script-src 'self'");
    const html = await page.text();
    expect(html).not.toMatch(/https?:\/\//);
    for (const [, path] of html.matchAll(/(?:src|href)="([^"]+)"/g))
      expect((await fetch(base + path)).status).toBe(200);
  });
  it('the routes can be listed', () => {
    expect(routesOf(app)).toEqual(
      expect.arrayContaining(['GET /v1/things/:id', 'HEAD /v1/things/:id', 'POST /v1/things', 'GET /docs']),
    );
  });
});
