/** Something that must not last for ever. */
export interface Watched {
  /** When it is over, ms of performance.now(). */
  deadline: number;
  expire(): void;
}

const EVERY_MS = 50;

/**
 * One timer for all requests. A timer each, set at the head and again at each piece of the body, costs more than
 * everything else that is done to decide where a request goes.
 */
export class Sweep {
  readonly #watched = new Set<Watched>();
  readonly #timer: NodeJS.Timeout;
  /** The time, at most 50 ms old: good enough for limits of seconds. */
  now = performance.now();

  constructor() {
    this.#timer = setInterval(() => this.#run(), EVERY_MS).unref();
  }

  add(watched: Watched): void {
    this.#watched.add(watched);
  }

  delete(watched: Watched): void {
    this.#watched.delete(watched);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #run(): void {
    this.now = performance.now();
    for (const watched of this.#watched) if (watched.deadline <= this.now) watched.expire();
  }
}
