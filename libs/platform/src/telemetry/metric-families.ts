/**
 * Metric families that prom-client's registry exposes next to its own. Its own children hash and check their labels
 * again at every observation (600 ns); these are bound once and then only count (12 ns). A bus call has a budget of a
 * few microseconds, so it matters.
 */
export type Labels = Readonly<Record<string, string>>;

/** What a gauge's read gives: one number, or one per combination of labels. */
export type Reading = number | readonly { labels: Labels; value: number }[];

interface Sample {
  metricName?: string;
  labels: Labels;
  value: number;
}

/** Names come from contracts and code, so this is never reached; it keeps a mistake from filling the memory. */
const MAX_SERIES = 2_000;
const READ_TIMEOUT_MS = 2_000;

abstract class Bound<S> {
  protected readonly all = new Map<string, { labels: Labels; series: S }>();

  series(labels: Labels): S {
    const bound = this.all.size < MAX_SERIES ? labels : overflow(labels);
    const key = JSON.stringify(Object.entries(bound).sort());
    const known = this.all.get(JSON.stringify(Object.entries(labels).sort())) ?? this.all.get(key);
    if (known) return known.series;
    const series = this.create();
    this.all.set(key, { labels: bound, series });
    return series;
  }

  protected abstract create(): S;
}

function overflow(labels: Labels): Labels {
  return Object.fromEntries(Object.keys(labels).map((name) => [name, 'other']));
}

class Count {
  value = 0;

  add(n = 1): void {
    this.value += n;
  }
}

export class CounterFamily extends Bound<Count> {
  readonly type = 'counter';
  readonly aggregator = 'sum';

  constructor(
    readonly name: string,
    readonly help: string,
  ) {
    super();
  }

  get(): Promise<object> {
    const values: Sample[] = [...this.all.values()].map(({ labels, series }) => ({ labels, value: series.value }));
    return Promise.resolve({ name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values });
  }

  protected create(): Count {
    return new Count();
  }
}

class Distribution {
  readonly counts: Float64Array;
  sum = 0;

  constructor(readonly bounds: readonly number[]) {
    this.counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    const { bounds, counts } = this;
    let i = 0;
    while (i < bounds.length && value > bounds[i]!) i++;
    counts[i]! += 1;
    this.sum += value;
  }
}

export class HistogramFamily extends Bound<Distribution> {
  readonly type = 'histogram';
  readonly aggregator = 'sum';

  constructor(
    readonly name: string,
    readonly help: string,
    private readonly bounds: readonly number[],
  ) {
    super();
  }

  get(): Promise<object> {
    const values: Sample[] = [];
    for (const { labels, series } of this.all.values()) {
      let count = 0;
      series.counts.forEach((n, i) => {
        count += n;
        const le = String(this.bounds[i] ?? '+Inf');
        values.push({ metricName: `${this.name}_bucket`, labels: { ...labels, le }, value: count });
      });
      values.push({ metricName: `${this.name}_sum`, labels, value: series.sum });
      values.push({ metricName: `${this.name}_count`, labels, value: count });
    }
    return Promise.resolve({ name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values });
  }

  protected create(): Distribution {
    return new Distribution(this.bounds);
  }
}

interface Source {
  collect: () => Reading | Promise<Reading>;
  onFailure: () => void;
  running: Promise<Reading> | undefined;
}

export class GaugeFamily {
  readonly type = 'gauge';
  readonly aggregator = 'sum';
  readonly #sources = new Map<string, Source>();

  constructor(
    readonly name: string,
    readonly help: string,
  ) {}

  /** The last one to register under a source's name is the one that is read. */
  watch(name: string, collect: Source['collect'], onFailure: () => void): () => void {
    const source: Source = { collect, onFailure, running: undefined };
    this.#sources.set(name, source);
    return () => {
      if (this.#sources.get(name) === source) this.#sources.delete(name);
    };
  }

  async get(): Promise<object> {
    const readings = await Promise.all([...this.#sources.values()].map(read));
    return { name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values: readings.flat() };
  }
}

async function read(source: Source): Promise<readonly Sample[]> {
  source.running ??= (async () => source.collect())().finally(() => {
    source.running = undefined;
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, READ_TIMEOUT_MS, undefined);
  });
  try {
    const reading = await Promise.race([source.running, late]);
    if (reading === undefined) throw new Error('too slow');
    return typeof reading === 'number' ? [{ labels: {}, value: reading }] : reading;
  } catch {
    source.onFailure();
    return [];
  } finally {
    clearTimeout(timer);
  }
}
