import { createServer as createHttpServer, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server as TcpServer } from 'node:net';
import Fastify from 'fastify';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { observeHttp } from './http.js';
import { startTelemetry, type Telemetry } from './telemetry.js';
import { currentTraceparent, withRemoteParent, withSpan } from './tracing.js';

interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  attributes: { key: string; value: object }[];
  status: { code?: number };
}

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const TRACEPARENT = `00-${TRACE}-00f067aa0ba902b7-01`;

const received: string[] = [];
let collector: Server;
let postgres: TcpServer;
let telemetry: Telemetry;

const port = (server: { address(): unknown }): number => (server.address() as AddressInfo).port;

/** As much of a Postgres server as one query needs: what is tested is our side of the wire. */
function postgresStub(): TcpServer {
  const message = (type: string, body = Buffer.alloc(0)): Buffer => {
    const head = Buffer.alloc(5);
    head.write(type);
    head.writeInt32BE(body.length + 4, 1);
    return Buffer.concat([head, body]);
  };
  const ready = message('Z', Buffer.from('I'));
  return createTcpServer((socket) => {
    socket.once('data', () => {
      socket.write(Buffer.concat([message('R', Buffer.alloc(4)), ready]));
      socket.on('data', (data) => {
        if (data[0] === 'X'.charCodeAt(0)) return socket.end();
        socket.write(
          Buffer.concat([message('1'), message('2'), message('n'), message('C', Buffer.from('SELECT 0\0')), ready]),
        );
      });
    });
  });
}

beforeAll(async () => {
  collector = createHttpServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      if (request.url === '/v1/traces') received.push(body);
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  });
  postgres = postgresStub();
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  await new Promise<void>((resolve) => postgres.listen(0, '127.0.0.1', resolve));
  telemetry = await startTelemetry({
    service: 'spec',
    otlpEndpoint: `http://127.0.0.1:${port(collector)}`,
    destination: { write: () => undefined },
  });
});
afterAll(() => {
  collector.close();
  postgres.close();
});

it('exports one trace through HTTP, a query, fetch and a queue, without secrets', async () => {
  const client = new pg.Client({ host: '127.0.0.1', port: port(postgres), user: 'banyan', password: 'pg-s3cret' });
  await client.connect();
  let stored: string | undefined;
  const app = Fastify();
  observeHttp(app);
  app.post('/v1/things/:id', async () => {
    await withSpan('orders.place', { operation: 'place' }, async () => {
      stored = currentTraceparent();
      await client.query('select * from users where mail = $1', ['ada@example.com']);
      await fetch(`http://127.0.0.1:${port(collector)}/away?mail=ada@example.com&name=Lovelace`);
    });
    return {};
  });
  const url = await app.listen({ port: 0 });
  const headers = { 'content-type': 'application/json', traceparent: TRACEPARENT };
  await fetch(`${url}/v1/things/secret-id?mail=ada@example.com`, { method: 'POST', headers, body: '{}' });
  const failing = withRemoteParent(stored, 'relay', { context: 'orders' }, async () => {
    await Promise.resolve();
    throw new Error('cannot reach ada@example.com with password=hunter2');
  });
  await expect(failing).rejects.toThrow('hunter2');
  await client.end();
  await app.close();
  await telemetry.stop();

  const spans = received.flatMap((body) =>
    (JSON.parse(body) as { resourceSpans: { scopeSpans: { spans: OtlpSpan[] }[] }[] }).resourceSpans.flatMap(
      (resource) => resource.scopeSpans.flatMap((scope) => scope.spans),
    ),
  );
  const named = (name: string | RegExp): OtlpSpan => {
    const span = spans.find((candidate) =>
      typeof name === 'string' ? candidate.name === name : name.test(candidate.name),
    );
    if (!span) throw new Error(`no span ${name} in ${spans.map((candidate) => candidate.name).join(', ')}`);
    return span;
  };
  const server = named('POST /v1/things/:id');
  const place = named('orders.place');
  expect(server).toMatchObject({ traceId: TRACE, parentSpanId: '00f067aa0ba902b7' });
  expect(place.parentSpanId).toBe(server.spanId);
  expect(named(/^pg\.query/).parentSpanId).toBe(place.spanId);
  expect(JSON.stringify(named(/^pg\.query/).attributes)).toContain('mail = $1');
  expect(named('GET').parentSpanId).toBe(place.spanId);
  expect(named('relay')).toMatchObject({ traceId: TRACE, parentSpanId: place.spanId, status: { code: 2 } });
  expect(received.join('')).toContain('"service.name"');
  expect(received.join('')).not.toMatch(/ada@|Lovelace|hunter2|pg-s3cret|secret-id/);
});
