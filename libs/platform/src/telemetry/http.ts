import { type Context, type Span, SpanKind, SpanStatusCode } from '@opentelemetry/api';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { rootLogger } from './log.js';
import { metrics as processMetrics, type Metrics } from './metrics.js';
import { runIn } from './trace-context.js';
import { enter } from './tracing.js';

/** What is known about a request while it runs. */
interface Observed {
  context: Context;
  span: Span | undefined;
  start: number;
}

const OBSERVED = Symbol('banyan.observed');
type ObservedRequest = FastifyRequest & { [OBSERVED]?: Observed | undefined };

/** The client went away before there was an answer (nginx's number for it). */
const CLIENT_CLOSED = 499;

const PROBES = new Set(['/livez', '/readyz', '/metrics']);

export interface ObserveHttpOptions {
  metrics?: Metrics;
  accessLog?: boolean;
}

/**
 * Observes every request of a Fastify server: trace context in, a server span, rate and duration per route pattern,
 * one access log line. To be called before any other hook or route is added.
 *
 * Hooks and not OpenTelemetry's http instrumentation: only Fastify knows the route pattern, and raw paths belong
 * in no label and no span.
 */
export function observeHttp(fastify: FastifyInstance, options: ObserveHttpOptions = {}): void {
  const { metrics = processMetrics, accessLog = true } = options;
  const log = rootLogger().child({ context: 'Http' });

  const finish = (request: ObservedRequest, status: number): void => {
    const observed = request[OBSERVED];
    if (!observed) return;
    request[OBSERVED] = undefined;
    const route = request.routeOptions.url ?? 'unmatched';
    const ms = performance.now() - observed.start;
    metrics.httpRequest(request.method, route, status, ms / 1_000);
    if (observed.span) {
      observed.span.setAttribute('http.response.status_code', status);
      if (status >= 500) observed.span.setStatus({ code: SpanStatusCode.ERROR });
      observed.span.end();
    }
    if (accessLog && !PROBES.has(route)) {
      const line = { msg: 'request', method: request.method, route, status, ms: Math.round(ms * 100) / 100 };
      runIn(observed.context, () => (status >= 500 ? log.warn(line) : log.info(line)));
    }
  };

  fastify.addHook('onRequest', (request: ObservedRequest, _reply: FastifyReply, done: () => void) => {
    const traceparent = request.headers['traceparent'];
    const { context, span } = enter(
      typeof traceparent === 'string' ? traceparent : undefined,
      `${request.method} ${request.routeOptions.url ?? 'unmatched'}`,
      SpanKind.SERVER,
      { 'http.request.method': request.method, 'http.route': request.routeOptions.url ?? 'unmatched' },
    );
    request[OBSERVED] = { context, span, start: performance.now() };
    // Fastify binds its body parsers to this context: it holds in handlers and error handlers too (see the spec).
    runIn(context, done);
  });

  fastify.addHook('onResponse', (request: ObservedRequest, reply: FastifyReply, done: () => void) => {
    finish(request, reply.statusCode);
    done();
  });

  fastify.addHook('onRequestAbort', (request: ObservedRequest, done: () => void) => {
    finish(request, CLIENT_CLOSED);
    done();
  });
}
