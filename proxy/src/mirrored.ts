import type { Side } from '@banyan/kernel';
import { type Answer, type AskOptions, type Sample, TooLarge } from '@banyan/extraction/parity';
import type { Dispatcher } from 'undici';
import type { Admitted } from './admission.js';
import type { AnswerHeaders } from './attempt.js';
import type { ContextState, Route } from './directory.js';
import type { Edge } from './edge.js';

/** What a caller gets, kept for parity: all of it, unless it is too large. */
export class AnswerCopy {
  readonly #head: Omit<Answer, 'body'>;
  #pieces: Buffer[] | undefined = [];
  #bytes = 0;

  constructor(
    private readonly maxBytes: number,
    status: number,
    { 'content-type': type, 'content-encoding': encoding }: AnswerHeaders,
  ) {
    this.#head = { status, contentType: type && String(type), encoding: encoding && String(encoding) };
  }

  add(piece: Buffer): void {
    this.#bytes += piece.length;
    if (this.#bytes > this.maxBytes) this.#pieces = undefined;
    this.#pieces?.push(piece);
  }

  get answer(): Answer | 'too large' {
    return this.#pieces ? { ...this.#head, body: Buffer.concat(this.#pieces) } : 'too large';
  }
}

/** A read that was served, as parity takes it: off the caller's path, with the way to ask either side again. */
export function mirrored(
  edge: Edge,
  route: Route,
  { method, target, path, headers }: Admitted,
  state: ContextState,
  ownHeaders: number,
  served: Sample['served'],
): Sample {
  const { context } = state;
  const operation = edge.operations.operationOf(context, method, path);
  // Without the caller's consistency token, and without a wish to wait: the copy may be behind, and parity asks again.
  const own = headers.slice(0, ownHeaders);
  const prefer = own.indexOf('prefer');
  if (prefer >= 0 && prefer % 2 === 0) own.splice(prefer, 2);
  return {
    ...{ context, operation, since: state.since, owner: state.owner, method, request: target, served },
    rules: edge.operations.rulesOf(operation, route.parity),
    ask: (side, options) => ask(state, side, { method, path: target, headers: own }, options),
  };
}

function ask(
  state: ContextState,
  side: Side,
  { method, path, headers }: { method: string; path: string; headers: string[] },
  { signal, maxBytes }: AskOptions,
): Promise<Answer> {
  const upstream = side === 'service' ? state.service : state.monolith;
  if (!upstream) return Promise.reject(new Error('there is no service'));
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    let answer: Omit<Answer, 'body'> | undefined;
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart(controller) {
        const abort = (): void => controller.abort(signal.reason as Error);
        if (signal.aborted) abort();
        else signal.addEventListener('abort', abort, { once: true });
      },
      onResponseStart(_, status, { 'content-type': type, 'content-encoding': encoding }) {
        if (status < 200) return;
        answer = { status, contentType: type && String(type), encoding: encoding && String(encoding) };
      },
      onResponseData(controller, chunk) {
        bytes += chunk.length;
        if (bytes > maxBytes) controller.abort(new TooLarge());
        else chunks.push(chunk);
      },
      onResponseEnd: () => resolve({ ...answer!, body: Buffer.concat(chunks) }),
      onResponseError: (_, error) => reject(error),
    };
    const placed = ['banyan-placement', `${state.context}=${side}`];
    upstream.dispatch({ method, path, headers: [...headers, ...placed], body: null }, handler);
  });
}
