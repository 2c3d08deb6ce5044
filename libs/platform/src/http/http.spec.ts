import { Controller, Get, Param } from '@nestjs/common';
import { DomainError } from '@banyan/kernel';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { Answers, routesOf } from './index.js';
import { id, json, post, thingsApp } from './things.spec-support.js';

@Controller('v1/things/fails')
class FailingController {
  @Get(':how')
  @Answers(200)
  fails(@Param({ schema: z.strictObject({ how: z.string() }) }) { how }: { how: string }) {
    if (how === 'database')
      throw Object.assign(new Error('P1001'), { cause: Object.assign(new Error('connect'), { code: 'ECONNREFUSED' }) });
    if (how === 'conflict') throw new DomainError('OUT_OF_STOCK', 'conflict', 'Only 3 left', { sku: 'a-1' });
    if (how === 'later') throw new DomainError('BUSY', 'unavailable', 'Moving house', { retryAfterMs: 1_500 });
    throw new Error('the password is hunter2');
  }
}

const things = thingsApp({ controllers: [FailingController] });
const { problem } = things;

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
    const first = await fetch(things.base + url);
    expect(first.headers.get('etag')).toBe('"3"');
    for (const tag of ['"3"', 'W/"3"', '"1", "3"', '*']) {
      const again = await fetch(things.base + url, { headers: { 'if-none-match': tag } });
      expect([again.status, await again.text(), again.headers.get('etag')]).toEqual([304, '', '"3"']);
    }
    expect((await fetch(things.base + url, { headers: { 'if-none-match': '"2"' } })).status).toBe(200);
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
    const response = await fetch(things.base + url, {
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
    const created = await fetch(`${things.base}/v1/things`, post({ name: 'a' }, { ...json, 'idempotency-key': key }));
    expect([created.status, await created.json()]).toEqual([
      201,
      { key, body: { name: 'a', parts: [] }, ip: '127.0.0.1' },
    ]);
    expect(await (await fetch(`${things.base}/v1/things/maybe`, { method: 'POST', headers: json })).json()).toEqual({
      key: null,
    });
  });
});

describe('answers', () => {
  it('carry security headers, who served them, and what the call learned', async () => {
    const { headers } = await fetch(`${things.base}/v1/things`);
    expect(Object.fromEntries(headers)).toMatchObject({
      'banyan-served-by': 'monolith',
      'banyan-consistency': 'c-1',
      'idempotent-replayed': 'true',
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none';frame-ancestors 'none'",
      'cache-control': 'no-cache',
    });
    expect(things.scopes).toContain('GET anonymous');
    const authenticated = await fetch(`${things.base}/v1/things`, { headers: { authorization: 'Bearer x' } });
    expect(authenticated.headers.get('cache-control')).toBe('no-store');
    const refused = await fetch(`${things.base}/nothing`);
    expect(refused.headers.get('x-content-type-options')).toBe('nosniff');
    expect(refused.headers.get('banyan-served-by')).toBe('monolith');
  });
  it('a HEAD is a GET without the body', async () => {
    const response = await fetch(`${things.base}/v1/things/${id}`, { method: 'HEAD' });
    expect([response.status, response.headers.get('etag'), await response.text()]).toEqual([200, '"3"', '']);
  });
  it('the bytes of a body stay readable, as sent', async () => {
    const text = '{ "a" :\n1 }';
    expect(await (await fetch(`${things.base}/v1/things/signed`, post(text))).json()).toEqual({ raw: text });
  });
});

describe('the description', () => {
  interface Operation {
    parameters?: { name: string; in: string; required?: boolean }[];
    responses: Record<string, { content?: Record<string, { schema: unknown }> }>;
  }
  it('is OpenAPI 3.1 with schemas, headers and problems', async () => {
    const response = await fetch(`${things.base}/openapi.json`);
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
    const page = await fetch(`${things.base}/docs`);
    expect(page.headers.get('content-security-policy')).toContain("script-src 'self'");
    const html = await page.text();
    expect(html).not.toMatch(/https?:\/\//);
    for (const [, path] of html.matchAll(/(?:src|href)="([^"]+)"/g))
      expect((await fetch(things.base + path)).status).toBe(200);
  });
  it('the routes can be listed', () => {
    expect(routesOf(things.app)).toEqual(
      expect.arrayContaining(['GET /v1/things/:id', 'HEAD /v1/things/:id', 'POST /v1/things', 'GET /docs']),
    );
  });
});
