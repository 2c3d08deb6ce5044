import { connect } from 'node:net';
import { Body, Controller, Get, Ip, Module, Param, Patch, Post, Query, RawBody, type Type } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { afterAll, beforeAll, expect } from 'vitest';
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
} from './index.js';

const Thing = z.strictObject({ id: z.uuid(), name: z.string(), version: z.int() }).meta({ id: 'Thing' });
const NewThing = z.strictObject({
  name: z.string().min(1),
  parts: z.array(z.strictObject({ 'a/b': z.int() })).default([]),
});
const IdParam = z.strictObject({ id: z.uuid() });
export const id = '0199d0a0-0000-7000-8000-000000000001';

@Controller('v1/things')
class ThingsController {
  @Get()
  @Answers(200, Page(Thing))
  list(@Query({ schema: PageQuery }) { limit, cursor }: z.output<typeof PageQuery>) {
    const after = decodeCursor(cursor, z.tuple([z.int()]))?.[0] ?? 0;
    return { items: [], nextCursor: encodeCursor([after + limit]) };
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

export const json = { 'content-type': 'application/json' };
export const keyed = { ...json, 'idempotency-key': 'k-1' };

export const post = (body: unknown, headers: Record<string, string> = keyed): RequestInit => ({
  method: 'POST',
  headers,
  body: typeof body === 'string' ? body : JSON.stringify(body),
});

/**
 * The app above, and more controllers, listening while the spec file that calls this at its top runs.
 * `requestTimeoutMs`: so long a body may take to arrive.
 */
export function thingsApp({
  controllers = [],
  requestTimeoutMs = 60_000,
}: { controllers?: Type[]; requestTimeoutMs?: number } = {}) {
  let app: NestFastifyApplication;
  let port: number;
  const scopes: string[] = [];

  beforeAll(async () => {
    const config = loadConfig({ BANYAN_REQUEST_TIMEOUT_MS: String(requestTimeoutMs), LOG_LEVEL: 'silent' });
    app = await createHttpApp({ module: ThingsModule, controllers }, config, {
      logger: false,
      requestScope: (request, actor, next) => {
        scopes.push(`${request.method} ${actor.kind}`);
        return next();
      },
      answerFacts: () => ({ replayed: true, consistency: 'c-1' }),
    });
    await app.listen(0, '127.0.0.1');
    port = (app.getHttpServer().address() as { port: number }).port;
  });
  afterAll(async () => {
    await app.close();
  });

  /** Asks for something that has to end in a problem. */
  async function problem(path: string, init: RequestInit = {}) {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, init);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
    const body = (await response.json()) as Record<string, unknown>;
    expect(body).toMatchObject({ status: response.status, type: expect.stringMatching(/^urn:banyan:problem:/) });
    expect(body['traceId']).toMatch(/^[0-9a-f]{32}$/);
    expect(Object.keys(body)).toEqual(expect.arrayContaining(['title', 'detail', 'code']));
    return { status: response.status, code: body['code'], errors: body['errors'], body, headers: response.headers };
  }

  /** Sends bytes as they are and reads until the server closes: what fetch would never send. */
  const raw = (bytes: string): Promise<string> =>
    new Promise((done, failed) => {
      let text = '';
      const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
      socket.on('data', (chunk) => (text += chunk.toString()));
      socket.on('close', () => done(text)).on('error', failed);
    });

  return {
    get app() {
      return app;
    },
    get base() {
      return `http://127.0.0.1:${port}`;
    },
    /** The handlers that ran in the app's scope, as `GET anonymous`. */
    scopes,
    problem,
    raw,
  };
}
