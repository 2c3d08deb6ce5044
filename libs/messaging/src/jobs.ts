import { Logger } from '@nestjs/common';
import { reasonOf, system } from '@banyan/kernel';
import type { RedisLink } from '@banyan/platform/redis';
import { currentTraceparent, metrics, readiness, withRemoteParent } from '@banyan/platform/telemetry';
import type { Queue, Worker } from 'bullmq';
import type { JobContext } from './handlers.js';
import { type JobBackend, type Payload, postgresJobs, redisJobs } from './jobs.backend.js';
import { currentScope, newScope, runInScope } from './scope.js';

/** Jobs at once in one process. They are sweeps: each does its rows in batches. */
const CONCURRENCY = 4;

/** How often it is looked whether the schedules are still there, ms: a Redis that was emptied has none. */
const CHECKED = 15_000;

/** At the end running jobs have so long, and so has whoever keeps the queue, if that is not away, ms. */
const LAST = 8_000;
const LAST_WHEN_AWAY = 500;

interface Registered {
  everyMs: number;
  run(ctx: JobContext): Promise<void>;
}

export interface JobsOptions {
  /** Where BullMQ's Postgres backend keeps its tables. They are made on first start. */
  connectionString: string;
  schema: string;
  /** Whose jobs: processes of one kind share them. Only Redis needs the name, where all kinds meet. */
  queue?: string;
}

/**
 * Wake-ups. The row is the truth: a job looks at rows and does what is due, a sweep finds what a lost wake-up missed,
 * and running twice is harmless, because BullMQ may run a stalled job again. So the queue may be lost as a whole: the
 * sweeps come back by themselves. With REDIS_URL it is in Redis; while that is away, jobs wait.
 */
export class Jobs {
  readonly #jobs = new Map<string, Registered>();
  readonly #log = new Logger('jobs');
  readonly #backend: JobBackend;
  #queue: Queue<Payload> | undefined;
  #worker: Worker<Payload> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #checking: Promise<void> | undefined;
  #stopped = false;
  /** Why no job runs, for people; what everybody knows is left to others to say. */
  #fault: string | undefined;
  #unlist = () => {};

  constructor(
    options: JobsOptions,
    /** Asked before every run: a job of a context that is owned elsewhere does nothing here. */
    private readonly active: (context: string) => boolean = () => true,
    redis?: RedisLink,
    private readonly checkedMs = CHECKED,
  ) {
    this.#backend = redis ? redisJobs(redis, options.queue ?? 'monolith') : postgresJobs(options);
  }

  add(name: string, job: Registered): void {
    if (this.#jobs.has(name)) throw new Error(`Two jobs are called ${name}`);
    this.#jobs.set(name, job);
  }

  /** With a queue that cannot be reached: throws, or (Redis) goes on without until it can. */
  async start(): Promise<void> {
    this.#unlist = readiness.degraded('jobs', () => this.#fault);
    await this.#backend.whenUp(() => this.#open());
    this.#timer = setInterval(() => void this.#check(), this.checkedMs).unref();
  }

  /** Lets running jobs end. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#unlist();
    clearInterval(this.#timer);
    await this.#checking;
    await this.#close();
    this.#backend.close();
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
      this.#failed(`${name} not woken, its sweep will do it`, error);
    }
  }

  /** The queue is there, for the first time or again. */
  async #open(): Promise<void> {
    if (this.#stopped) return;
    if (this.#queue) return this.#check();
    const failed = (error: Error) => this.#failed('job queue', error);
    const queue = this.#backend.queue();
    const worker = this.#backend.worker((job) => this.#run(job.name, job.data), CONCURRENCY);
    queue.on('error', failed);
    worker.on('error', failed);
    this.#queue = queue;
    this.#worker = worker;
    try {
      await queue.waitUntilReady();
      // Before a job runs: in Postgres, a run of a schedule that is being changed would put the next one where it was.
      await this.#schedule(queue, { first: true });
      await worker.waitUntilReady();
      worker.run().catch(failed);
      this.#fault = undefined;
    } catch (error) {
      this.#couldNotOpen(error);
      // Half a queue would never get whole: the next time starts anew.
      this.#queue = this.#worker = undefined;
      await closed(queue, worker, () => this.#backend.isUp());
      throw error;
    }
  }

  #check(): Promise<void> {
    return (this.#checking ??= this.#checkNow().finally(() => (this.#checking = undefined)));
  }

  async #checkNow(): Promise<void> {
    const queue = this.#queue;
    if (!queue || this.#stopped || !this.#backend.isUp()) return;
    try {
      await this.#schedule(queue, { first: false });
    } catch (error) {
      this.#failed('schedules not checked', error);
    }
  }

  /** What is there stays as it is. */
  async #schedule(queue: Queue<Payload>, { first }: { first: boolean }): Promise<void> {
    const known = new Map((await queue.getJobSchedulers()).map((scheduler) => [scheduler.key, scheduler]));
    for (const [name, { everyMs }] of this.#jobs)
      if (Number(known.get(name)?.every) !== everyMs)
        await queue.upsertJobScheduler(name, { every: everyMs }, { name, data: {} });
    // Jobs that the code no longer has must not come round for ever. Only at the start: newer processes may have others.
    for (const [key, { name }] of known)
      if (first && name && !this.#jobs.has(name)) await queue.removeJobScheduler(key);
  }

  async #close(): Promise<void> {
    const [queue, worker] = [this.#queue, this.#worker];
    this.#queue = this.#worker = undefined;
    if (queue && worker) await closed(queue, worker, () => this.#backend.isUp());
  }

  /** It is tried again and again: said when it is news. */
  #couldNotOpen(error: unknown): void {
    const fault = reasonOf(error);
    if (this.#stopped || this.#backend.isAway(error)) return;
    if (fault !== this.#fault) this.#log.error({ msg: 'no jobs run: their queue cannot be opened', reason: fault });
    this.#fault = fault;
  }

  #failed(msg: string, error: unknown): void {
    if (!this.#stopped && !this.#backend.isAway(error)) this.#log.warn({ msg, reason: reasonOf(error) });
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

/** BullMQ waits for answers that may never come: whoever is not there any more is not waited for. */
async function closed(queue: Queue<Payload>, worker: Worker<Payload>, isUp: () => boolean): Promise<void> {
  const ended = Promise.all([worker.close(!isUp()), queue.close()]).then(
    () => true,
    () => false,
  );
  const from = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    // Asked again and again: it may go away a moment before this, and be missed a moment after.
    timer = setInterval(() => {
      if (performance.now() - from > (isUp() ? LAST : LAST_WHEN_AWAY)) resolve(false);
    }, 50);
  });
  const clean = await Promise.race([ended, late]);
  clearInterval(timer);
  if (!clean) for (const each of [worker, queue]) each.disconnect().catch(() => {});
}
