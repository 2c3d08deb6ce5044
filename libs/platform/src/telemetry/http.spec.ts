import { request as plainRequest } from 'node:http';
import Fastify, { type FastifyInstance } from 'fastify';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { observeHttp } from './http.js';
import { configureLogs, rootLogger } from './log.js';
import { Metrics } from './metrics.js';
import { startTelemetry, type Telemetry } from './telemetry.js';
import { currentTraceId, currentTraceparent, traceHeaders, withRemoteParent } from './tracing.js';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const TRACEPARENT = `00-${TRACE}-00f067aa0ba902b7-01`;

const metrics = new Metrics();
const lines: Record<string, unknown>[] = [];
const servers: FastifyInstance[] = [];
let telemetry: Telemetry;
let front: string;
let reached: () => void;
const patient = { timeout: 20_000 };

async function serve(routes: (app: FastifyInstance) => void): Promise<string> {
  const app = Fastify({ bodyLimit: 1_000 });
  observeHttp(app, { metrics });
  app.setErrorHandler((error: { statusCode?: number }, _request, reply) => {
    void reply.status(error.statusCode ?? 500).send({ traceId: currentTraceId() });
  });
  routes(app);
  servers.push(app);
  return app.listen({ port: 0 });
}

beforeAll(async () => {
  telemetry = await startTelemetry({
    service: 'spec',
    format: 'json',
    destination: { write: (line) => lines.push(JSON.parse(line)) },
  });
  const back = await serve((app) => {
    app.post('/back/:id', async (_request) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      return { received: currentTraceparent() };
    });
  });
  front = await serve((app) => {
    app.get('/front/:id', async () => {
      const answer = await fetch(`${back}/back/7?email=ada@example.com`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"a":1}',
      });
      return { own: currentTraceparent(), ...((await answer.json()) as object) };
    });
    app.post('/echo', async () => {
      rootLogger().info('inside');
      return { traceId: currentTraceId() };
    });
    app.get('/slow', () => {
      reached();
      return new Promise(() => undefined);
    });
    app.get('/livez', () => 'ok');
    app.get('/broken', () => Promise.reject(new Error('no')));
  });
});
beforeEach(() => void (lines.length = 0));
afterAll(async () => {
  await Promise.all(servers.map((server) => server.close()));
  await telemetry.stop();
  configureLogs({ service: 'spec' });
});

it('continues the trace that came in, and hands it on with fetch', async () => {
  const answer = await fetch(`${front}/front/1`, { headers: { traceparent: TRACEPARENT } });
  const { own, received } = (await answer.json()) as { own: string; received: string };
  expect(own.split('-')[1]).toBe(TRACE);
  expect(own).not.toBe(TRACEPARENT);
  expect(received.split('-')[1]).toBe(TRACE);
  expect(received).not.toBe(own);
});

it('begins a trace when none or a malformed one comes in', async () => {
  const own = async (traceparent: string): Promise<string> => {
    const answer = await fetch(`${front}/front/1`, { headers: { traceparent } });
    return ((await answer.json()) as { own: string }).own;
  };
  const malformed = [
    '',
    'x',
    `ff-${TRACE}-00f067aa0ba902b7-01`,
    `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`,
    `${TRACEPARENT}-more`,
  ];
  const begun = await Promise.all(malformed.map(own));
  for (const traceparent of begun) expect(traceparent).toMatch(/^00-[\da-f]{32}-[\da-f]{16}-01$/);
  expect(new Set([...begun, TRACEPARENT].map((traceparent) => traceparent.split('-')[1])).size).toBe(
    malformed.length + 1,
  );
});

it.each([
  ['a body', '{"a":1}', {}, 200],
  ['a malformed body', '{"a":', {}, 400],
  ['a body over the limit', JSON.stringify('x'.repeat(2_000)), {}, 413],
  ['a body in chunks', ['{"a"', ':1}'], { 'transfer-encoding': 'chunked' }, 200],
])('keeps the trace over %s', async (_what, body, headers, status) => {
  const chunks = [body].flat();
  const answer = await new Promise<{ status: number; traceId: string }>((resolve, reject) => {
    const request = plainRequest(
      `${front}/echo`,
      { method: 'POST', headers: { 'content-type': 'application/json', traceparent: TRACEPARENT, ...headers } },
      (response) => {
        let text = '';
        response.on('data', (chunk) => (text += chunk));
        response.on('end', () =>
          resolve({ status: response.statusCode!, ...(JSON.parse(text) as { traceId: string }) }),
        );
      },
    );
    request.on('error', reject);
    request.flushHeaders();
    // The rest arrives in packets of its own, when the request's hooks have long returned.
    chunks.forEach((chunk, i) =>
      setTimeout(() => (i === chunks.length - 1 ? request.end(chunk) : request.write(chunk)), 20 * (i + 1)),
    );
  });
  expect(answer).toEqual({ status, traceId: TRACE });
});

it('logs one line per request, with the pattern and the trace and no path, and none for probes', async () => {
  await fetch(`${front}/echo?email=ada@example.com`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', traceparent: TRACEPARENT },
    body: '{}',
  });
  await fetch(`${front}/livez`);
  await fetch(`${front}/nowhere/secret-path`);
  await fetch(`${front}/broken`);
  await expect.poll(() => lines.length, patient).toBe(4);
  expect(lines[0]).toMatchObject({ msg: 'inside', traceId: TRACE });
  expect(lines[1]).toMatchObject({
    level: 'info',
    context: 'Http',
    msg: 'request',
    method: 'POST',
    route: '/echo',
    status: 200,
    traceId: TRACE,
  });
  expect(lines[1]!['ms']).toBeTypeOf('number');
  expect(lines[2]).toMatchObject({ route: 'unmatched', status: 404 });
  expect(lines[3]).toMatchObject({ level: 'warn', route: '/broken', status: 500 });
  expect(JSON.stringify(lines)).not.toMatch(/secret-path|ada@/);
});

it('counts requests by route pattern, and those the client gave up', async () => {
  const abort = new AbortController();
  const arrived = new Promise<void>((done) => (reached = done));
  const given = fetch(`${front}/slow`, { signal: abort.signal }).catch(() => undefined);
  await arrived;
  abort.abort();
  await given;
  await fetch(`${front}/front/8`);
  await fetch(`${front}/front/9`);
  await expect.poll(() => metrics.expose(), patient).toContain('method="GET",route="/slow",status="499"');
  const text = await metrics.expose();
  expect(text).toMatch(
    /banyan_http_request_duration_seconds_count\{method="GET",route="\/front\/:id",status="200"\} [2-9]/,
  );
  expect(text).not.toContain('/front/8');
});

it('carries a stored traceparent into the work it belongs to', async () => {
  expect(currentTraceparent()).toBeUndefined();
  expect(traceHeaders()).toEqual({});
  const inside = await withRemoteParent(TRACEPARENT, 'relay', undefined, async () => {
    await Promise.resolve();
    return { id: currentTraceId(), headers: traceHeaders() };
  });
  expect(inside.id).toBe(TRACE);
  expect(inside.headers.traceparent).toContain(TRACE);
  expect(withRemoteParent(undefined, 'job', undefined, () => currentTraceId())).toMatch(/^[\da-f]{32}$/);
  expect(currentTraceId()).toBeUndefined();
});
