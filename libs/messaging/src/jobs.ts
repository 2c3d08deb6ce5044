import { Logger } from '@nestjs/common';
import { system } from '@banyan/kernel';
import { currentTraceparent, metrics, withRemoteParent } from '@banyan/platform/telemetry';
import { createPostgresBackend, withBackend } from 'bullmq';
import type { JobContext } from './handlers.js';
import { currentScope, newScope, runInScope } from './scope.js';

const { Queue, Worker } = withBackend(createPostgresBackend);

const QUEUE = 'banyan';

/** Jobs at once in one process. They are sweeps: each does its rows in batches. */
const CONCURRENCY = 4;

/**
 * How soon the sweeps go on after the database was away: when a worker asks again (BullMQ would sleep for 15 s), and when a
 * run that it took along is given up (after a minute; the next one waits for it). Running twice is harmless.
 */
const recovery = { runRetryDelay: 500, lockDuration: 10_000, stalledInterval: 5_000 };

interface Registered {
  everyMs: number;
  run(ctx: JobContext): Promise<void>;
}

interface Payload {
  id?: string;
  traceparent?: string;
}

export interface JobsOptions {
  /** Where BullMQ's Postgres backend keeps its tables. They are made on first start. */
  connectionString: string;
  schema: string;
}

/**
 * Wake-ups. The row is the truth: a job looks at rows and does what is due, a sweep finds what a lost wake-up missed,
 * and running twice is harmless, because BullMQ may run a stalled job again.
 */
export class Jobs {
  readonly #jobs = new Map<string, Registered>();
  readonly #log = new Logger('jobs');
  #queue: InstanceType<typeof Queue<Payload>> | undefined;
  #worker: InstanceType<typeof Worker<Payload>> | undefined;

  constructor(
    private readonly options: JobsOptions,
    /** Asked before every run: a job of a context that is owned elsewhere does nothing here. */
    private readonly active: (context: string) => boolean = () => true,
  ) {}

  add(name: string, job: Registered): void {
    if (this.#jobs.has(name)) throw new Error(`Two jobs are called ${name}`);
    this.#jobs.set(name, job);
  }

  async start(): Promise<void> {
    const { connectionString, schema } = this.options;
    const connection = { connectionString, schema, migrate: true, max: 4, application_name: 'banyan:jobs' };
    const queue = new Queue<Payload>(QUEUE, {
      connection,
      defaultJobOptions: { removeOnComplete: true, removeOnFail: { count: 100 } },
    });
    this.#queue = queue;
    queue.on('error', (error) => this.#log.warn({ msg: 'job queue not reachable', err: error }));
    await this.#queue.waitUntilReady();
    for (const [name, { everyMs }] of this.#jobs)
      await this.#queue.upsertJobScheduler(name, { every: everyMs }, { name, data: {} });
    // Jobs that the code no longer has must not come round for ever.
    for (const scheduler of await this.#queue.getJobSchedulers())
      if (scheduler.name && !this.#jobs.has(scheduler.name)) await this.#queue.removeJobScheduler(scheduler.key);
    this.#worker = new Worker<Payload>(QUEUE, (job) => this.#run(job.name, job.data), {
      connection,
      concurrency: CONCURRENCY,
      ...recovery,
    });
    this.#worker.on('error', (error) => this.#log.warn({ msg: 'job worker', err: error }));
    await this.#worker.waitUntilReady();
  }

  /** Lets running jobs end. */
  async stop(): Promise<void> {
    await this.#worker?.close();
    await this.#queue?.close();
  }

  /**
   * Runs a job soon, or at `at`, besides its sweep. Never throws: a wake-up that got lost is made good by the sweep.
   * Several wake-ups with one `id` that have not run yet are one. Inside a transaction it waits for the commit.
   */
  async wake(name: string, { id, at }: { id?: string; at?: Date } = {}): Promise<void> {
    const defer = currentScope()?.afterCommit;
    if (defer) return defer(() => void this.wake(name, { id, at }));
    try {
      await this.#queue?.add(
        name,
        { id, traceparent: currentTraceparent() },
        // BullMQ reserves the colon for its own keys.
        { delay: at ? Math.max(0, at.getTime() - Date.now()) : 0, jobId: id && `${name}/${id}`.replaceAll(':', '_') },
      );
    } catch (error) {
      this.#log.warn({ msg: `${name} not woken, its sweep will do it`, err: error });
    }
  }

  async #run(name: string, { id, traceparent }: Payload): Promise<void> {
    const job = this.#jobs.get(name);
    if (!job || !this.active(name.split('.')[0]!)) return;
    const meter = metrics.jobRun(name);
    const started = performance.now();
    const seconds = () => (performance.now() - started) / 1000;
    try {
      await withRemoteParent(traceparent, `job ${name}`, undefined, () =>
        runInScope(newScope(system(`job:${name}`)), () => job.run({ now: new Date(), id })),
      );
      meter.observe('ok', seconds());
    } catch (error) {
      meter.observe('internal', seconds());
      this.#log.warn({ msg: `${name} failed, its next round tries again`, err: error });
    }
  }
}
