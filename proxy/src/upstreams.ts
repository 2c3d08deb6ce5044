import type { Readable } from 'node:stream';
import { CircuitState, type CircuitBreakerPolicy, ConsecutiveBreaker, circuitBreaker, handleAll } from 'cockatiel';
import { type Dispatcher, Pool } from 'undici';

/** Longer than a restart of the other side's process takes; shorter than anybody's patience. */
const CONNECT_MS = 1_000;
/**
 * For upstreams that do not say how long they keep a connection: shorter than the 5 s of a plain Node server, the shortest
 * there is, else a request could meet a closing socket. Those that say it (`Keep-Alive: timeout=…`) are left 2 s earlier.
 */
const KEEP_ALIVE_MS = 4_000;
const CONNECTIONS = 256;

/** One address that answers requests. */
export class Upstream {
  readonly #pool: Pool;
  /** Opens after five failed reads of a canary in a row; tries one a second later. */
  readonly breaker: CircuitBreakerPolicy = circuitBreaker(handleAll, {
    halfOpenAfter: 1_000,
    breaker: new ConsecutiveBreaker(5),
  });

  constructor(readonly origin: string) {
    this.#pool = new Pool(origin, {
      connections: CONNECTIONS,
      pipelining: 1,
      allowH2: false,
      connect: { timeout: CONNECT_MS, keepAlive: true },
      keepAliveTimeout: KEEP_ALIVE_MS,
      // Its own timers cost every request twice; one sweep watches over all of them instead.
      headersTimeout: 0,
      bodyTimeout: 0,
      maxHeaderSize: 64 * 1024,
    });
  }

  get broken(): boolean {
    return this.breaker.state === CircuitState.Open;
  }

  /** Never throws: what cannot be sent is told to the handler. */
  dispatch({ method, path, headers, body }: UpstreamRequest, handler: Dispatcher.DispatchHandler): void {
    // `blocking` is about pipelines, and nothing waits behind a request here: without it undici saves a turn of its queue.
    this.#pool.dispatch({ method, path, headers, body, blocking: false }, handler);
  }

  /** Finishes what runs, then closes. */
  async close(): Promise<void> {
    await this.#pool.close().catch(() => {});
  }

  async destroy(): Promise<void> {
    await this.#pool.destroy().catch(() => {});
  }
}

export interface UpstreamRequest {
  method: Dispatcher.HttpMethod;
  path: string;
  /** Names and values in turn; as it is when the request gets a connection. */
  headers: string[];
  body: Buffer | Readable | null;
}

/** Every address in use, one pool each: connections survive a change of the routes. */
export class Upstreams {
  #upstreams = new Map<string, Upstream>();

  at(url: string): Upstream {
    const { origin } = new URL(url);
    let upstream = this.#upstreams.get(origin);
    if (!upstream) this.#upstreams.set(origin, (upstream = new Upstream(origin)));
    return upstream;
  }

  /** Lets go of all but those. */
  keep(wanted: ReadonlySet<Upstream>): void {
    for (const [origin, upstream] of this.#upstreams)
      if (!wanted.has(upstream)) {
        this.#upstreams.delete(origin);
        void upstream.close();
      }
  }

  async destroy(): Promise<void> {
    await Promise.all([...this.#upstreams.values()].map((upstream) => upstream.destroy()));
  }
}
