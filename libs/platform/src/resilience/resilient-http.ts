import {
  BrokenCircuitError,
  BulkheadRejectedError,
  CircuitState,
  ExponentialBackoff,
  SamplingBreaker,
  bulkhead,
  circuitBreaker,
  handleWhen,
  retry,
  wrap,
} from 'cockatiel';
import { Pool } from 'undici';
import { neverConnected } from './never-connected.js';
import { UpstreamFailure } from './upstream-failure.js';

export interface ResilientHttpOptions {
  baseUrl: string;
  /** For one attempt, from connecting to the last byte. */
  timeoutMs: number;
  /** Attempts after the first, for calls that may be repeated. Default 2. */
  retries?: number;
  /** Upper bound of the first wait; it doubles, with jitter, up to 20 times that. Default 50. */
  retryDelayMs?: number;
  /** Calls under way at once; as many again may wait, the next is refused. Default 32. */
  concurrency?: number;
  /** How long an open circuit refuses calls before it lets one try. Default 5 s. */
  openMs?: number;
  /** Answers larger than this are an error. Default 1 MiB. */
  maxAnswerBytes?: number;
}

export interface UpstreamCall {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Path and query, as text that is already encoded. */
  path: string;
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as it is; give the content type in `headers`. */
  body?: string | Uint8Array;
  headers?: Record<string, string>;
  /** May be repeated. By default true for methods that HTTP calls idempotent and for calls with an Idempotency-Key. */
  idempotent?: boolean;
  signal?: AbortSignal;
}

export interface UpstreamAnswer {
  /** Below 500: anything else is a failure. */
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
  /** The body as JSON. Throws UpstreamFailure when it is not. */
  json(): unknown;
}

export interface ResilientHttp {
  /** Throws UpstreamFailure, which says whether the call may have had an effect. */
  call(call: UpstreamCall): Promise<UpstreamAnswer>;
  /** `closed` while all is well, `open` while calls are refused. */
  readonly circuit: 'closed' | 'open';
  close(): Promise<void>;
}

const idempotentMethods = new Set(['GET', 'HEAD', 'PUT', 'DELETE']);

const failed = (error: unknown): error is UpstreamFailure =>
  error instanceof UpstreamFailure && error.reason !== 'cancelled' && error.reason !== 'answer';

/**
 * HTTP to one other system, with a time limit on each attempt, retries for calls that may be repeated, a circuit breaker
 * that opens when half of the calls fail, and a limit on what runs at once, so that a slow neighbour cannot take
 * the whole process along. An unkeyed POST is never repeated.
 */
export function resilientHttp(options: ResilientHttpOptions): ResilientHttp {
  const { baseUrl, timeoutMs, retries = 2, retryDelayMs = 50, concurrency = 32, openMs = 5_000 } = options;
  const { origin, pathname } = new URL(baseUrl);
  const prefix = pathname.replace(/\/+$/, '');
  const pool = new Pool(origin, {
    connections: concurrency,
    pipelining: 1,
    connect: { timeout: timeoutMs },
    // Shorter than any server's, so that we never write into a connection that is being closed.
    keepAliveTimeout: 4_000,
  });
  const limit = bulkhead(concurrency, concurrency);
  const breaker = circuitBreaker(handleWhen(failed), {
    halfOpenAfter: openMs,
    breaker: new SamplingBreaker({ threshold: 0.5, duration: 10_000, minimumRps: 1 }),
  });
  const repeated = wrap(
    limit,
    retry(handleWhen(failed), {
      maxAttempts: retries,
      backoff: new ExponentialBackoff({ initialDelay: retryDelayMs, maxDelay: retryDelayMs * 20 }),
    }),
    breaker,
  );
  const once = wrap(limit, breaker);

  const attempt = async (call: UpstreamCall, signal: AbortSignal): Promise<UpstreamAnswer> => {
    const deadline = AbortSignal.timeout(timeoutMs);
    try {
      const answer = await pool.request({
        method: call.method,
        path: prefix + call.path,
        headers: { ...(call.json !== undefined && { 'content-type': 'application/json' }), ...call.headers },
        body: call.json !== undefined ? JSON.stringify(call.json) : call.body,
        signal: AbortSignal.any([deadline, signal]),
      });
      const text = await readText(answer.body, options.maxAnswerBytes ?? 1_048_576);
      if (answer.statusCode >= 500)
        throw new UpstreamFailure('status', true, new Error(`answered ${answer.statusCode}`));
      return { status: answer.statusCode, headers: answer.headers, text, json: () => parse(text) };
    } catch (error) {
      if (error instanceof UpstreamFailure) throw error;
      if (signal.aborted) throw new UpstreamFailure('cancelled', true, error);
      if (deadline.aborted) throw new UpstreamFailure('timeout', true, error);
      throw new UpstreamFailure('network', !neverConnected(error), error);
    }
  };

  return {
    async call(call) {
      const mayRepeat =
        call.idempotent ??
        (idempotentMethods.has(call.method) ||
          Object.keys(call.headers ?? {}).some((name) => name.toLowerCase() === 'idempotency-key'));
      try {
        return await (mayRepeat ? repeated : once).execute(({ signal }) => attempt(call, signal), call.signal);
      } catch (error) {
        if (error instanceof UpstreamFailure) throw error;
        if (error instanceof BrokenCircuitError) throw new UpstreamFailure('open', false, error);
        if (error instanceof BulkheadRejectedError) throw new UpstreamFailure('full', false, error);
        throw new UpstreamFailure('cancelled', false, error);
      }
    },
    get circuit() {
      return breaker.state === CircuitState.Closed ? 'closed' : 'open';
    },
    close: () => pool.close(),
  };
}

async function readText(body: AsyncIterable<Buffer>, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) throw new UpstreamFailure('answer', true, new Error(`answered more than ${maxBytes} bytes`));
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UpstreamFailure('answer', true, error);
  }
}
