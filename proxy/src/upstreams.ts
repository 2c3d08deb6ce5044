import type { Readable } from 'node:stream';
import { CircuitState, type CircuitBreakerPolicy, ConsecutiveBreaker, circuitBreaker, handleAll } from 'cockatiel';
import { type Dispatcher, Pool } from 'undici';
import { Wires } from './wire.js';

/** Longer than a restart of the other side's process takes; shorter than anybody's patience. */
const CONNECT_MS = 1_000;
/** Shorter than the 5 s of a plain Node server, the shortest there is: else a request could meet a closing socket. */
const KEEP_ALIVE_MS = 4_000;
const CONNECTIONS = 256;

/** One address that answers requests. */
export class Upstream {
  readonly #pool: Pool;
  readonly #wires: Wires;
  /** Opens after five failed reads of a canary in a row; tries one a second later. */
  readonly breaker: CircuitBreakerPolicy = circuitBreaker(handleAll, {
    halfOpenAfter: 1_000,
    breaker: new ConsecutiveBreaker(5),
  });

  constructor(readonly origin: string) {
    this.#wires = new Wires(origin, { connections: CONNECTIONS, connectMs: CONNECT_MS, idleMs: KEEP_ALIVE_MS });
    this.#pool = new Pool(origin, {
      connections: CONNECTIONS,
      pipelining: 1,
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

  dispatch(options: UpstreamRequest, handler: Dispatcher.DispatchHandler): void {
    const { method, body } = options;
    if (body === null || Buffer.isBuffer(body)) this.#wires.send({ ...options, body }, handler);
    else
      this.#pool.dispatch(
        { ...options, method: method as Dispatcher.HttpMethod, headers: [...options.headers] },
        handler,
      );
  }

  /** Finishes what runs, then closes. */
  async close(): Promise<void> {
    this.#wires.close();
    await this.#pool.close().catch(() => {});
  }

  async destroy(): Promise<void> {
    this.#wires.destroy();
    await this.#pool.destroy().catch(() => {});
  }
}

export interface UpstreamRequest {
  method: string;
  path: string;
  headers: readonly string[];
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
