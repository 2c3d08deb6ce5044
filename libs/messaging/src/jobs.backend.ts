import type { RedisLink } from '@banyan/platform/redis';
import { type Job, Queue, type Worker, createPostgresBackend, createRedisBackend, withBackend } from 'bullmq';

export interface Payload {
  id?: string;
  traceparent?: string;
}

/** Where BullMQ keeps the queue. */
export interface JobBackend {
  /** Runs `open` when the queue can be reached, and again whenever it has come back; where it fails meanwhile, until it does not. */
  whenUp(open: () => Promise<void>): Promise<void>;
  isUp(): boolean;
  /** Is this only what everybody knows: that it cannot be reached? */
  isAway(error: unknown): boolean;
  queue(): Queue<Payload>;
  worker(run: (job: Job<Payload>) => Promise<void>, concurrency: number): Worker<Payload>;
  close(): void;
}

/** How soon it is tried again, if Redis went away or refused while the queue was being opened: at first, and at last, ms. */
const AGAIN = 500;
const AT_LAST = 10_000;

/**
 * A worker runs when it is told to. And how soon the sweeps go on after the queue was away: when it asks again (BullMQ would
 * sleep for 15 s), and when a run that it took along is given up (after a minute; the next one waits for it). Running twice
 * is harmless.
 */
const workerOptions = { autorun: false, runRetryDelay: AGAIN, lockDuration: 10_000, stalledInterval: 5_000 };

const defaultJobOptions = { removeOnComplete: true, removeOnFail: { count: 100 } };

/** In Postgres: there is nothing else to run, and it is there when the shop is. */
export function postgresJobs({ connectionString, schema }: { connectionString: string; schema: string }): JobBackend {
  const { Queue, Worker } = withBackend(createPostgresBackend);
  const connection = { connectionString, schema, migrate: true, max: 4, application_name: 'banyan:jobs' };
  return {
    whenUp: (open) => open(),
    isUp: () => true,
    isAway: () => false,
    queue: () => new Queue<Payload>('banyan', { connection, defaultJobOptions }) as unknown as Queue<Payload>,
    worker: (run, concurrency) =>
      new Worker<Payload>('banyan', run, { connection, concurrency, ...workerOptions }) as unknown as Worker<Payload>,
    close: () => {},
  };
}

/**
 * In Redis. Nothing here waits for it: whoever wakes a job while it is away is told at once, and the worker, which has
 * connections of its own, comes back when Redis does.
 */
export function redisJobs(link: RedisLink, name: string): JobBackend {
  const { Queue, Worker } = withBackend(createRedisBackend);
  const prefix = 'banyan';
  // BullMQ makes what it blocks on from this one, which itself never connects.
  const patient = link.connect({ lazyConnect: true, maxRetriesPerRequest: null });
  let unlisten: (() => void) | undefined;
  let timer: NodeJS.Timeout | undefined;
  return {
    async whenUp(open) {
      const tried = (waitMs: number): void => {
        open().catch(() => {
          clearTimeout(timer);
          timer = setTimeout(() => link.up && tried(Math.min(AT_LAST, 2 * waitMs)), waitMs).unref();
        });
      };
      unlisten = link.onUp(() => tried(AGAIN));
    },
    isUp: () => link.up,
    // RedisLink says it, once. BullMQ's own connections notice it before and after, each for itself.
    isAway: (error) => !link.up || /ECONN|EPIPE|ETIMEDOUT|Connection is closed|timed out/.test(String(error)),
    queue: () => new Queue<Payload>(`jobs-${name}`, { connection: link.commands, prefix, defaultJobOptions }),
    worker: (run, concurrency) =>
      new Worker<Payload>(`jobs-${name}`, run, { connection: patient, prefix, concurrency, ...workerOptions }),
    close() {
      unlisten?.();
      clearTimeout(timer);
    },
  };
}
