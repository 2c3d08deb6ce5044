import { connect } from 'node:net';
import type { Readable } from 'node:stream';
import { neverConnected } from '@banyan/platform/resilience';
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
/** How often an instance that was away is looked for: in the background, so that no request waits for it. */
const LOOK_AGAIN_MS = 500;

/** One process that answers requests. */
class Instance {
  readonly #pool: Pool;
  #looking: NodeJS.Timeout | undefined;

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

  /** It could not be reached a moment ago. */
  get away(): boolean {
    return this.#looking !== undefined;
  }

  dispatch({ method, path, headers, body }: UpstreamRequest, handler: Dispatcher.DispatchHandler): void {
    // `blocking` is about pipelines, and nothing waits behind a request here: without it undici saves a turn of its queue.
    this.#pool.dispatch({ method, path, headers, body, blocking: false }, handler);
  }

  /** It could not be reached: the others serve until it takes connections again. */
  lost(): void {
    this.#looking ??= setInterval(() => this.#look(), LOOK_AGAIN_MS).unref();
  }

  /** Finishes what runs, then closes. */
  async close(): Promise<void> {
    this.#found();
    await this.#pool.close().catch(() => {});
  }

  async destroy(): Promise<void> {
    this.#found();
    await this.#pool.destroy().catch(() => {});
  }

  #look(): void {
    const { hostname, port } = new URL(this.origin);
    const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 80), timeout: CONNECT_MS });
    socket.once('connect', () => this.#found()).once('error', () => {});
    for (const event of ['connect', 'timeout']) socket.once(event, () => socket.destroy());
  }

  #found(): void {
    clearInterval(this.#looking);
    this.#looking = undefined;
  }
}

/** One side, as requests see it: whichever of its instances can be reached. */
export class Upstream {
  /** Opens after five failed reads of a canary in a row; tries one a second later. */
  readonly breaker: CircuitBreakerPolicy = circuitBreaker(handleAll, {
    halfOpenAfter: 1_000,
    breaker: new ConsecutiveBreaker(5),
  });
  #turn = 0;

  constructor(readonly instances: readonly Instance[]) {}

  get broken(): boolean {
    return this.breaker.state === CircuitState.Open;
  }

  /** Where a request would go just now. */
  get origin(): string {
    return this.#inTurn()[0]!.origin;
  }

  /** Never throws: what cannot be sent is told to the handler. What could not begin at one instance goes to the next. */
  dispatch(request: UpstreamRequest, handler: Dispatcher.DispatchHandler): void {
    const { instances } = this;
    if (instances.length === 1) return instances[0]!.dispatch(request, handler);
    this.#turn = (this.#turn + 1) % instances.length;
    new FailOver(this.#inTurn(), request, handler).begin();
  }

  /** From the one whose turn it is; those that are away come last. */
  #inTurn(): Instance[] {
    const order = [...this.instances.slice(this.#turn), ...this.instances.slice(0, this.#turn)];
    return order.some(({ away }) => away)
      ? [...order.filter(({ away }) => !away), ...order.filter(({ away }) => away)]
      : order;
  }
}

/** Passes on what an instance tells about a request, unless it tells that the request never began there. */
class FailOver implements Dispatcher.DispatchHandler {
  #at = 0;
  #begun = false;

  constructor(
    private readonly instances: readonly Instance[],
    private readonly request: UpstreamRequest,
    private readonly handler: Dispatcher.DispatchHandler,
  ) {}

  begin(): void {
    this.instances[this.#at]!.dispatch(this.request, this);
  }

  onRequestStart(controller: Dispatcher.DispatchController, context: unknown): void {
    this.#begun = true;
    this.handler.onRequestStart?.(controller, context);
  }

  onResponseStart(...told: Parameters<NonNullable<Dispatcher.DispatchHandler['onResponseStart']>>): void {
    this.handler.onResponseStart?.(...told);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.handler.onResponseData?.(controller, chunk);
  }

  onResponseEnd(...told: Parameters<NonNullable<Dispatcher.DispatchHandler['onResponseEnd']>>): void {
    this.handler.onResponseEnd?.(...told);
  }

  onResponseError(controller: Dispatcher.DispatchController, error: Error): void {
    if (!this.#begun && neverConnected(error)) this.instances[this.#at]!.lost();
    if (!this.#begun && ++this.#at < this.instances.length) return this.begin();
    this.handler.onResponseError?.(controller, error);
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
  readonly #instances = new Map<string, Instance>();
  readonly #upstreams = new Map<string, Upstream>();

  at(urls: readonly string[]): Upstream {
    const origins = [...new Set(urls.map((url) => new URL(url).origin))];
    const key = origins.join();
    let upstream = this.#upstreams.get(key);
    if (!upstream) this.#upstreams.set(key, (upstream = new Upstream(origins.map((each) => this.#instance(each)))));
    return upstream;
  }

  /** Lets go of all but those. */
  keep(wanted: ReadonlySet<Upstream>): void {
    for (const [key, upstream] of this.#upstreams) if (!wanted.has(upstream)) this.#upstreams.delete(key);
    const used = new Set([...wanted].flatMap(({ instances }) => instances));
    for (const [origin, instance] of this.#instances)
      if (!used.has(instance)) {
        this.#instances.delete(origin);
        void instance.close();
      }
  }

  async destroy(): Promise<void> {
    await Promise.all([...this.#instances.values()].map((instance) => instance.destroy()));
  }

  #instance(origin: string): Instance {
    let instance = this.#instances.get(origin);
    if (!instance) this.#instances.set(origin, (instance = new Instance(origin)));
    return instance;
  }
}
