import { setTimeout as sleep } from 'node:timers/promises';
import { type Abandoned, LogFollower } from './follower.js';
import type { SharedSource } from './open.js';
import { persistently } from './persistently.js';
import { Publisher } from './publisher.js';
import type { RunOptions } from './run-options.js';
import type { SharedLog } from './shared-log.js';
import type { Stream } from './stream.js';

/* For what was published at last to be applied. */
const DRAIN_MS = 2_000;
/* A session waits so long for the log to be there, before it says that it is not. */
const PUBLISHED_MS = 3_000;
/* SQLSTATE: somebody has ended our connection. */
const TAKEN = '57P01';

/**
 * Beside the sessions that apply a shared log, the one publisher of it: it goes on while the target is away, and stops
 * first, so that what has left the slot is in the target when everything ends in order.
 */
export class SharedRun {
  readonly #stop = new AbortController();
  readonly #abandoned: Abandoned = new Map();
  #publishing: Promise<void> | undefined;
  #opened!: () => void;
  readonly #isOpen = new Promise<void>((resolve) => (this.#opened = resolve));
  #problem: Error | undefined;
  #published: bigint | undefined;
  readonly #running = new Set<'session' | 'publisher'>();
  #stoppedAt = Infinity;
  /** Going on would be wrong. */
  #fatal: Error | undefined;

  constructor(
    private readonly stream: Stream,
    private readonly log: SharedLog,
    private readonly options: RunOptions,
  ) {
    if (!log.publish) this.#opened();
    const { signal } = options;
    const stopped = () => this.#stop.abort();
    if (signal?.aborted) stopped();
    signal?.addEventListener('abort', stopped, { signal: this.#stop.signal });
    this.#stop.signal.addEventListener('abort', () => (this.#stoppedAt = Date.now()));
  }

  /** Ends the sessions. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  get session(): { shared: SharedSource; mayStop: (read: bigint) => boolean } {
    return {
      shared: {
        name: this.log.stream,
        isGuest: !this.log.publish,
        follow: (mark, source) => this.#follow(mark, source),
      },
      mayStop: (read) => this.#isDrained(read),
    };
  }

  opened(who: 'session' | 'publisher'): void {
    this.#running.add(who);
    if (this.#running.size === (this.log.publish ? 2 : 1)) this.options.onOpen?.();
  }

  broke(who: 'session' | 'publisher', error: Error): void {
    this.#running.delete(who);
    this.options.onProblem?.(error);
  }

  publish(): void {
    if (!this.log.publish || this.#stop.signal.aborted) return;
    this.#publishing ??= this.#publish().catch((error: Error) => {
      this.#fatal = error;
      this.#stop.abort();
    });
  }

  /** Throws what made an end of publishing. */
  async end(): Promise<void> {
    this.#stop.abort();
    await this.#publishing;
    if (this.#fatal) throw this.#fatal;
  }

  async #follow(mark: bigint, source: string): Promise<LogFollower | string> {
    const waited = new AbortController();
    const late = sleep(PUBLISHED_MS, true, { signal: waited.signal }).catch(() => true);
    // What the stream holds before its publisher has looked at it may be of another slot.
    const tooLate = await Promise.race([this.#isOpen.then(() => false), late]);
    waited.abort();
    if (tooLate) throw this.#problem ?? new Error('The log is not published');
    return LogFollower.open(this.log, mark, source, this.#abandoned);
  }

  async #publish(): Promise<void> {
    let takeOver = true;
    this.#published = await persistently(
      (opened) =>
        Publisher.run(this.stream, this.log, {
          signal: this.#stop.signal,
          takeOver,
          onOpen: () => {
            opened();
            this.#opened();
            this.opened('publisher');
          },
          onWarning: this.options.onWarning,
        }),
      {
        signal: this.#stop.signal,
        onProblem: (error) => {
          // A newer process has taken the slot: it is not snatched back, until that one lets go.
          takeOver &&= (error as { code?: string }).code !== TAKEN;
          this.#problem = error;
          this.broke('publisher', error);
        },
      },
    );
    this.#published ??= 0n;
  }

  #isDrained(read: bigint): boolean {
    if (this.#fatal || !this.#publishing || Date.now() - this.#stoppedAt > DRAIN_MS) return true;
    return this.#published !== undefined && read >= this.#published;
  }
}
