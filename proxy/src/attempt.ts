import type { Side } from '@banyan/kernel';
import { neverConnected } from '@banyan/platform/resilience';
import type { Dispatcher } from 'undici';
import type { Refusal } from './problem.js';
import type { Sweep, Watched } from './sweep.js';

export type AnswerHeaders = Record<string, string | string[] | undefined>;

/** Who wants to know how an attempt goes. Once it is discarded, nothing more is told. */
export interface Audience {
  answered(attempt: Attempt, status: number, headers: AnswerHeaders): void;
  data(attempt: Attempt, chunk: Buffer): void;
  ended(attempt: Attempt): void;
  failed(attempt: Attempt, error: Error): void;
}

export class UpstreamTimeout extends Error {
  readonly code = 'UPSTREAM_TIMEOUT';
}

/** One request to one side: undici's handler, and the time limit. */
export class Attempt implements Dispatcher.DispatchHandler, Watched {
  readonly from = performance.now();
  deadline: number;
  #controller: Dispatcher.DispatchController | undefined;
  #state: 'waiting' | 'answering' | 'paused' | 'over' = 'waiting';

  constructor(
    private readonly audience: Audience,
    private readonly sweep: Sweep,
    readonly side: Side,
    /** For the head, and for each silence after it, ms. */
    public limitMs: number,
    readonly settle?: (ok: boolean) => void,
  ) {
    this.deadline = this.from + limitMs;
    sweep.add(this);
  }

  /** A byte of the request may have left. Before that it may be sent again, whatever it is. */
  get begun(): boolean {
    return this.#controller !== undefined;
  }

  /** Nobody wants the answer any more. A small one is read to its end, which keeps the connection; `now` cuts it off. */
  discard(now = false): void {
    if (this.#state === 'over') return;
    const answering = this.#state !== 'waiting';
    this.#state = 'over';
    // What is read to its end has as long as before; then `expire` cuts it off.
    if (!now && answering) return;
    this.sweep.delete(this);
    this.#controller?.abort(new Error('nobody waits for the answer'));
  }

  pause(): void {
    this.#state = 'paused';
    // The client's slowness is not the upstream's silence.
    this.deadline = Infinity;
    this.#controller?.pause();
  }

  readonly resume = (): void => {
    if (this.#state !== 'paused') return;
    this.#state = 'answering';
    this.deadline = this.sweep.now + this.limitMs;
    this.#controller?.resume();
  };

  expire(): void {
    const error = new UpstreamTimeout(`no byte within ${this.limitMs} ms`);
    this.sweep.delete(this);
    const over = this.#state === 'over';
    this.#state = 'over';
    this.#controller?.abort(error);
    if (!over) this.audience.failed(this, error);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#state === 'over') controller.abort(new Error('nobody waits for the answer'));
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: AnswerHeaders): void {
    // Informational answers are for this hop; the client has had its `100 Continue` from us.
    if (status < 200 || this.#state === 'over') return;
    this.#state = 'answering';
    this.deadline = this.sweep.now + this.limitMs;
    this.audience.answered(this, status, headers);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#state === 'over') {
      // A discarded answer that does not end soon is not worth its connection.
      if (chunk.length > 16 * 1024) controller.abort(new Error('nobody waits for the answer'));
      return;
    }
    this.deadline = this.sweep.now + this.limitMs;
    this.audience.data(this, chunk);
  }

  onResponseEnd(): void {
    this.sweep.delete(this);
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.audience.ended(this);
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.sweep.delete(this);
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.audience.failed(this, error);
  }
}

/** The connection broke before an answer came, as it does when it was idle for just too long. */
export const isReset = (error: Error): boolean =>
  ['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'].includes((error as { code?: string }).code ?? '');

/** What the caller is told of a side that failed. */
export function failureOf(error: Error, side: Side): Refusal {
  if (error instanceof UpstreamTimeout)
    return { status: 504, code: 'DEADLINE_EXCEEDED', detail: `The ${side} did not answer in time` };
  if (neverConnected(error))
    return {
      ...{ status: 503, code: 'UPSTREAM_UNAVAILABLE', retryAfter: 1 },
      detail: `The ${side} cannot be reached: nothing was sent`,
    };
  return { status: 502, code: 'UPSTREAM_UNAVAILABLE', detail: `The ${side} broke off before it had answered` };
}
