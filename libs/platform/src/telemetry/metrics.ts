import { collectDefaultMetrics, type Metric, Registry } from 'prom-client';
import { CounterFamily, GaugeFamily, HistogramFamily, type Labels, type Reading } from './metric-families.js';

export type { Labels, Reading };

/** Seconds. From a cached in-process call to a purchase that waits for a slow payment provider. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** More outcomes than error kinds exist would mean that somebody passes messages. */
const MAX_OUTCOMES = 16;

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** Rate, errors and duration of one thing, bound to its labels once and then cheap (12 ns a call). */
export interface Meter {
  /** `outcome` is `'ok'` or an error kind, never a message. */
  observe(outcome: string, seconds: number): void;
}

/**
 * Everything the process exposes at `/metrics`. Registering the same thing again replaces it, so that an app that is
 * started twice in one process (in tests) reports the second. The `watch…` and `gauge` functions return one that stops.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #families = new Map<string, CounterFamily | GaugeFamily | HistogramFamily>();
  readonly #routes = new Map<string, { observe(seconds: number): void }>();
  #process = false;

  /** Event-loop lag, memory, CPU, garbage collection, handles: prom-client's `process_*` and `nodejs_*`. */
  collectProcess(): void {
    if (this.#process) return;
    this.#process = true;
    collectDefaultMetrics({ register: this.#registry });
  }

  /** One contract operation at one placement. Bind it at boot, observe per call. */
  operation(context: string, operation: string, placement: string): Meter {
    return this.#meter('banyan_operation_duration_seconds', 'Calls of contract operations by outcome', {
      context,
      operation,
      placement,
    });
  }

  /** Runs of one job. */
  jobRun(job: string): Meter {
    return this.#meter('banyan_job_duration_seconds', 'Runs of jobs by outcome', { job });
  }

  /** One answered HTTP request. `route` is the pattern (`/v1/stock/:sku`), never the path. */
  httpRequest(method: string, route: string, status: number, seconds: number): void {
    const key = `${method} ${status} ${route}`;
    let series = this.#routes.get(key);
    if (!series) {
      series = this.histogram('banyan_http_request_duration_seconds', 'HTTP requests by route pattern and status', {
        method: METHODS.has(method) ? method : 'OTHER',
        route,
        status: String(status),
      });
      // The method is the client's to choose, so only the known ones are remembered.
      if (METHODS.has(method)) this.#routes.set(key, series);
    }
    series.observe(seconds);
  }

  /** What waits in a context's outbox, and for how long the oldest has. */
  watchOutbox(context: string, read: () => Promise<{ pending: number; oldestSeconds: number }>): () => void {
    return this.#watch(context, read, {
      banyan_outbox_pending: ['Events that are not delivered yet', (outbox) => outbox.pending],
      banyan_outbox_oldest_seconds: [
        'Age of the oldest event that is not delivered yet',
        (outbox) => outbox.oldestSeconds,
      ],
    });
  }

  /** Events a context has parked after too many attempts. */
  watchInbox(context: string, read: () => Promise<{ parked: number }>): () => void {
    return this.#watch(context, read, {
      banyan_inbox_parked: ['Events parked after too many attempts', (inbox) => inbox.parked],
    });
  }

  /** How many sagas of a context are in which state. */
  watchSagas(
    context: string,
    read: () => Promise<readonly { saga: string; state: string; count: number }[]>,
  ): () => void {
    return this.gauge(
      'banyan_sagas',
      'Sagas by state',
      async () => (await read()).map(({ saga, state, count }) => ({ labels: { context, saga, state }, value: count })),
      context,
    );
  }

  /** Connections of a context's pool, and callers that wait for one. */
  watchPool(context: string, read: () => { total: number; idle: number; waiting: number }): () => void {
    return this.#watch(context, read, {
      banyan_pool_connections: ['Connections of the pool', (pool) => pool.total],
      banyan_pool_idle: ['Connections of the pool that are free', (pool) => pool.idle],
      banyan_pool_waiting: ['Callers that wait for a connection', (pool) => pool.waiting],
    });
  }

  /**
   * A value read at each scrape. A read that fails or takes longer than 2 s leaves its series out and is counted in
   * `banyan_metrics_failures_total`; while one hangs, no second is started. Several `source`s can feed one name.
   */
  gauge(name: string, help: string, collect: () => Reading | Promise<Reading>, source = ''): () => void {
    const family = this.#family(name, GaugeFamily, help);
    return family.watch(source, collect, () =>
      this.counter('banyan_metrics_failures', 'Metrics that could not be read', { metric: name }).add(),
    );
  }

  /** A counter bound to its labels; exposed as `<name>_total`. Labels are names from a bounded set, never ids. */
  counter(name: string, help: string, labels: Labels = {}): { add(n?: number): void } {
    return this.#family(`${name}_total`, CounterFamily, help).series(labels);
  }

  /** A histogram of seconds bound to its labels. */
  histogram(name: string, help: string, labels: Labels = {}): { observe(seconds: number): void } {
    return this.#family(name, HistogramFamily, help, BUCKETS).series(labels);
  }

  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE;

  /** The exposition in Prometheus' text format. */
  expose(): Promise<string> {
    return this.#registry.metrics();
  }

  #meter(name: string, help: string, labels: Labels): Meter {
    const outcomes = new Map<string, { observe(seconds: number): void }>();
    const add = (outcome: string): { observe(seconds: number): void } => {
      const label = outcomes.size < MAX_OUTCOMES ? outcome : 'other';
      const series = this.histogram(name, help, { ...labels, outcome: label });
      if (label === outcome) outcomes.set(outcome, series);
      return series;
    };
    // Present from the start: a rate needs the zero before the first call.
    add('ok');
    return { observe: (outcome, seconds) => (outcomes.get(outcome) ?? add(outcome)).observe(seconds) };
  }

  /** Several gauges from one read: a read that is under way is shared, so that a scrape asks the database once. */
  #watch<T>(
    context: string,
    read: () => T | Promise<T>,
    gauges: Record<string, [help: string, value: (reading: T) => number]>,
  ): () => void {
    let running: Promise<T> | undefined;
    const shared = (): Promise<T> =>
      (running ??= (async () => read())().finally(() => {
        running = undefined;
      }));
    const stops = Object.entries(gauges).map(([name, [help, value]]) =>
      this.gauge(name, help, async () => [{ labels: { context }, value: value(await shared()) }], context),
    );
    return () => stops.forEach((stop) => stop());
  }

  #family<F extends CounterFamily | GaugeFamily | HistogramFamily, A extends unknown[]>(
    name: string,
    kind: new (name: string, help: string, ...rest: A) => F,
    help: string,
    ...rest: A
  ): F {
    const known = this.#families.get(name);
    if (known) {
      if (!(known instanceof kind)) throw new Error(`The metric ${name} is a ${known.type} already`);
      return known;
    }
    const family = new kind(name, help, ...rest);
    this.#families.set(name, family);
    // prom-client wants its own classes by type, but asks only for what a family has.
    this.#registry.registerMetric(family as unknown as Metric);
    return family;
  }
}

/** The process's metrics. */
export const metrics = new Metrics();
