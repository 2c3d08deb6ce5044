import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import helmet from '@fastify/helmet';
import { type DynamicModule, type LoggerService, Module, type Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Side } from '@banyan/kernel';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Config } from '../config/index.js';
import { RedisLink } from '../redis/index.js';
import { RedisModule } from '../redis/redis.module.js';
import { admitRequests } from './admission.js';
import { AnswerInterceptor, type ScopeOptions } from './answer.interceptor.js';
import { ConfigModule } from './config.module.js';
import { serveReference } from './docs-page.js';
import { fail } from './errors.js';
import { parseJson } from './json.js';
import { NDJSON } from './ndjson.js';
import { openApiDocument } from './openapi.js';
import { ProblemFilter } from './problem.filter.js';
import { newTraceId, problemOf, toDomainError, traceIdOf } from './problem.js';
import { RateLimits } from './rate-limits.js';
import { RouteTable } from './routes.js';
import { SchemaPipe } from './validation.js';

export interface HttpAppOptions extends ScopeOptions {
  /** For the OpenAPI document. */
  title?: string;
  version?: string;
  logger?: LoggerService | false;
  /** What `Banyan-Served-By` says, unless a setting turns it off; else what the settings say. */
  servedBy?: Side;
  /** Called before any hook or route is added: what observes every request goes first. */
  observe?: (server: FastifyInstance) => void;
  /** Keep log lines until the app installs its own logger with `app.useLogger`. */
  bufferLogs?: boolean;
}

@Module({
  providers: [
    {
      provide: RateLimits,
      inject: [Config, RedisLink],
      useFactory: (config: Config, redis: RedisLink | undefined) => new RateLimits(config, redis),
    },
  ],
  exports: [RateLimits],
})
class HttpModule {}

/** Longer than any upstream keep-alive of ours, so that the caller closes first and never writes into a closed socket. */
const keepAliveMs = 72_000;
const maxParamLength = 256;

const tables = new WeakMap<FastifyInstance, RouteTable>();
const closing = new WeakSet<FastifyInstance>();

/**
 * A Nest app on Fastify with everything the edge needs: limits, security headers, validation, problems, OpenAPI.
 * Not listening yet: `app.listen(port, host)` is the caller's. `Config`, `RateLimits`, `Cache` and `RedisLink` (undefined
 * without REDIS_URL) are injectable everywhere in it.
 */
export async function createHttpApp(
  module: Type | DynamicModule,
  config: Config,
  options: HttpAppOptions = {},
): Promise<NestFastifyApplication> {
  const adapter = adapterFor(config);
  const server = adapter.getInstance() as unknown as FastifyInstance;
  const routes = new RouteTable();
  tables.set(server, routes);
  options.observe?.(server);
  server.addHook('onRoute', ({ method, url }) => routes.add(method, url));

  class Root {}
  const root: DynamicModule = {
    module: Root,
    imports: [ConfigModule.of(config), RedisModule.forRoot(), { module: HttpModule, global: true }, module],
  };
  const app = await NestFactory.create<NestFastifyApplication>(root, adapter, {
    bodyParser: false,
    abortOnError: false,
    bufferLogs: options.bufferLogs,
    ...(options.logger !== undefined && { logger: options.logger }),
  });
  app.useGlobalFilters(new ProblemFilter(routes));
  app.useGlobalPipes(new SchemaPipe());
  app.useGlobalInterceptors(new AnswerInterceptor(options));

  // Each header costs every request a few µs, so those for browsers of another age are left out.
  await server.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: { 'default-src': ["'none'"], 'frame-ancestors': ["'none'"] },
    },
    crossOriginOpenerPolicy: false,
    originAgentCluster: false,
    xDnsPrefetchControl: false,
    xDownloadOptions: false,
    xPermittedCrossDomainPolicies: false,
    xXssProtection: false,
  });
  const { servedBy } = config.http;
  admitRequests(server, config, app.get(RateLimits), servedBy === 'off' ? servedBy : (options.servedBy ?? servedBy));
  server.addHook('onSend', (request, reply, payload, done) => {
    if (!reply.hasHeader('cache-control')) {
      const shared = request.method === 'GET' && request.headers.authorization === undefined;
      reply.header('cache-control', shared ? 'no-cache' : 'no-store');
    }
    if (closing.has(server) || !request.raw.complete) reply.header('connection', 'close');
    done(null, payload);
  });
  readBodies(server, config);
  serveReference(server, () => openApiDocument(app, options.title ?? 'Banyan', options.version ?? '1.0.0'));
  return app;
}

/** Every route of an app as `GET /v1/products/:id`, once it is initialised. */
export function routesOf(app: NestFastifyApplication): string[] {
  return tables.get(app.getHttpAdapter().getInstance() as unknown as FastifyInstance)?.list() ?? [];
}

/**
 * Stops accepting, lets running requests finish, and only then closes the app (pools, jobs): Nest on its own closes
 * those first. After `graceMs` the connections that are left are cut.
 */
export async function shutDown(app: NestFastifyApplication, graceMs: number): Promise<void> {
  const adapter = app.getHttpAdapter();
  closing.add(adapter.getInstance() as unknown as FastifyInstance);
  const cut = setTimeout(() => app.getHttpServer().closeAllConnections(), graceMs);
  await adapter.close();
  clearTimeout(cut);
  await app.close();
}

function adapterFor(config: Config): FastifyAdapter {
  const { http } = config;
  const adapter = new FastifyAdapter({
    bodyLimit: http.bodyLimitBytes,
    requestTimeout: http.uploadTimeoutMs,
    keepAliveTimeout: keepAliveMs,
    maxRequestsPerSocket: http.maxRequestsPerSocket,
    http: { headersTimeout: http.headersTimeoutMs, connectionsCheckingInterval: 1_000 },
    trustProxy: http.trustedProxies.length > 0 ? http.trustedProxies : false,
    routerOptions: { maxParamLength },
    // While closing, a request that was already on its way is still answered, with Connection: close.
    return503OnClosing: false,
    genReqId: (raw: IncomingMessage & { id?: unknown }) => {
      const id = randomUUID().replaceAll('-', '');
      // The request log names the request by this too, so a problem's traceId finds its line without tracing.
      raw.id = id;
      return id;
    },
    frameworkErrors: (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => {
      const { problem, headers } = problemOf(toDomainError(error), traceIdOf(request.id));
      void reply
        .code(problem.status)
        .headers(headers)
        .send(Buffer.from(JSON.stringify(problem)));
    },
    clientErrorHandler: refuseUnreadable,
  });
  adapter.getHttpServer().maxConnections = http.maxConnections;
  return adapter;
}

/** What Node could not even parse gets a problem too, written by hand: there is no request to answer. */
function refuseUnreadable(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed || !socket.writable) {
    socket.destroy();
    return;
  }
  const refusal =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? fail('HEADERS_TOO_LARGE', 'The headers are too large')
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? fail('REQUEST_TIMEOUT', 'The request took too long to arrive')
        : fail('MALFORMED_REQUEST', 'This is not a request that can be read');
  const { problem, headers } = problemOf(refusal, newTraceId());
  const body = JSON.stringify(problem);
  const lines = Object.entries({ ...headers, 'content-length': Buffer.byteLength(body), connection: 'close' });
  socket.end(
    `HTTP/1.1 ${problem.status} ${problem.title}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`,
  );
}

/**
 * JSON is read whole and bounded; its bytes stay at hand (`@RawBody()`) because webhooks are signed over bytes, and
 * keeping them costs nothing: they have been read anyway. NDJSON is handed on as a stream. Nothing else is read.
 */
function readBodies(server: FastifyInstance, config: Config): void {
  const { bodyLimitBytes, jsonDepth } = config.http;
  server.removeAllContentTypeParsers();
  server.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer', bodyLimit: bodyLimitBytes },
    (request, body, done) => {
      const bytes = body as Buffer;
      (request as { rawBody?: Buffer }).rawBody = bytes;
      try {
        // Clients that always name a content type also send it with no body, as in DELETE or a cancel.
        done(null, bytes.length === 0 ? undefined : parseJson(bytes, jsonDepth));
      } catch (error) {
        done(error as Error, undefined);
      }
    },
  );
  server.addContentTypeParser(NDJSON, (_request, stream, done) => done(null, stream));
}
