import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import {
  type Context,
  INVALID_SPAN_CONTEXT,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from '@opentelemetry/api';
import {
  activeContext,
  activeSpanContext,
  formatTraceparent,
  newSpanContext,
  parseTraceparent,
  runIn,
} from './trace-context.js';

/** Names, ids, counts. Never personal data: spans leave the process (trap 27). */
export type SpanAttributes = Record<string, string | number | boolean>;

/** Set while traces are exported. All the hot path asks when tracing is off. */
let tracer: Tracer | undefined;

export function recordSpansWith(recorder: Tracer | undefined): void {
  tracer = recorder;
}

const NOTHING = trace.wrapSpanContext(INVALID_SPAN_CONTEXT);

/**
 * Runs `fn` as a step of the current trace. An error, thrown or rejected, is recorded on the span and passed on.
 * When tracing is off this is one comparison: ids of steps that nobody records are not made.
 */
export function withSpan<T>(name: string, attributes: SpanAttributes | undefined, fn: (span: Span) => T): T {
  if (tracer === undefined) return fn(NOTHING);
  return record(tracer.startSpan(name, { attributes }, activeContext()), activeContext(), fn);
}

/**
 * Runs `fn` as work that came in from outside: a queue, a job, a remote call. It continues the trace that
 * `traceparent` names (stored in the outbox row or the job, trap 26) or begins one, whatever was current before.
 */
export function withRemoteParent<T>(
  traceparent: string | undefined,
  name: string,
  attributes: SpanAttributes | undefined,
  fn: (span: Span) => T,
): T {
  const entry = enter(traceparent, name, SpanKind.CONSUMER, attributes);
  if (entry.span === undefined) return runIn(entry.context, () => fn(NOTHING));
  return record(entry.span, entry.context, fn);
}

/** The `traceparent` of the current step, to be stored or sent with what it causes; undefined outside of a trace. */
export function currentTraceparent(): string | undefined {
  const span = activeSpanContext();
  return span && formatTraceparent(span);
}

export function currentTraceId(): string | undefined {
  return activeSpanContext()?.traceId;
}

/** Headers for a call out that is not made with fetch or undici, which get them by themselves. */
export function traceHeaders(): { traceparent?: string } {
  const traceparent = currentTraceparent();
  return traceparent === undefined ? {} : { traceparent };
}

/** Where a request or message enters the process. `span` is there only while traces are exported; the caller ends it. */
export function enter(
  traceparent: string | undefined,
  name: string,
  kind: SpanKind,
  attributes: SpanAttributes | undefined,
): { context: Context; span: Span | undefined } {
  const remote = parseTraceparent(traceparent);
  if (tracer === undefined) {
    return { context: trace.setSpanContext(ROOT_CONTEXT, newSpanContext(remote)), span: undefined };
  }
  const parent = remote ? trace.setSpanContext(ROOT_CONTEXT, remote) : ROOT_CONTEXT;
  const span = tracer.startSpan(name, { kind, attributes }, parent);
  return { context: trace.setSpan(parent, span), span };
}

function record<T>(span: Span, parent: Context, fn: (span: Span) => T): T {
  return runIn(trace.setSpan(parent, span), () => {
    try {
      const result = fn(span);
      if (isPromise(result)) {
        return result.then(
          (value) => {
            span.end();
            return value;
          },
          (error: unknown) => {
            fail(span, error);
            throw error;
          },
        ) as T;
      }
      span.end();
      return result;
    } catch (error) {
      fail(span, error);
      throw error;
    }
  });
}

function fail(span: Span, error: unknown): void {
  const cause = error instanceof Error ? error : new Error(String(error));
  span.recordException(cause);
  span.setStatus({ code: SpanStatusCode.ERROR, message: cause.message });
  span.end();
}

function isPromise(value: unknown): value is Promise<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function';
}

interface UndiciRequest {
  addHeader(name: string, value: string): void;
}

/**
 * fetch and undici send the current `traceparent` while tracing is off; when it is on, their instrumentation does.
 * undici publishes each request in the caller's own async context, so nothing has to be wrapped.
 */
export function propagateThroughUndici(): () => void {
  const onRequest = (message: unknown): void => {
    const traceparent = currentTraceparent();
    if (traceparent !== undefined)
      (message as { request: UndiciRequest }).request.addHeader('traceparent', traceparent);
  };
  subscribe('undici:request:create', onRequest);
  return () => void unsubscribe('undici:request:create', onRequest);
}
