import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ConsistencyTokens, type Side, formatTokens } from '@banyan/kernel';
import { isOperation } from '@banyan/extraction/parity';
import { rootLogger } from '@banyan/platform/telemetry';
import { CircuitState } from 'cockatiel';
import type { Admitted } from './admission.js';
import { Attempt, type AnswerHeaders, failureOf, isReset } from './attempt.js';
import { KEPT_BYTES, Upload, readSmall } from './body.js';
import { Caller } from './caller.js';
import type { ContextState, Route } from './directory.js';
import type { Edge } from './edge.js';
import { answerHeaders } from './headers.js';
import { AnswerCopy, mirrored } from './mirrored.js';
import { type Command, OwnerWait } from './owner-wait.js';
import { sideOfCommand, sideOfRead } from './placement.js';
import { type Refusal, refuse, unavailable, unforeseen } from './problem.js';
import type { Watched } from './sweep.js';
import { newTraceparent, traceIdOf } from './trace.js';

/** Up to this, copying a piece of an answer is cheaper than sending it as a piece of its own. */
const SMALL_BYTES = 16 * 1024;

/** Taken out of the file while the request waited. */
const routeGone: Refusal = { status: 404, code: 'ROUTE_NOT_FOUND', detail: 'There is nothing at this path any more' };

const candidateFailed = new Error('the candidate failed');

/**
 * One request, from its head to the last byte of its answer. It has at most one attempt under way; another follows only
 * where the first cannot have had an effect, or its effect happens once: a read, a command that a fence has refused, a
 * write with an Idempotency-Key that its route takes.
 */
export class Exchange implements Watched, Command {
  deadline = Infinity;
  readonly #traceparent: string;
  readonly #from = performance.now();
  /** Where the headers that the client sent end in the list. */
  readonly #ownHeaders: number;
  #body: Buffer | Upload | null = null;
  #attempt: Attempt | undefined;
  /** The state that the last attempt was placed by. */
  #state: ContextState | undefined;
  #asks: Caller | undefined;
  #waits: OwnerWait | undefined;
  /** What came of the answer while the other proxies are being told of the caller's write. */
  #queued: (() => void)[] | undefined;
  #retries = 0;
  /** How a write was lost that may have happened. What comes of sending it again tells nothing of that, unless it is answered. */
  #lost: { error: Error; side: Side } | undefined;
  #committed = false;
  #over = false;
  /** Bytes of the answer's body that are still to come, when its length is known; -1 otherwise. */
  #left = -1;
  #copy: AnswerCopy | undefined;
  #bodyBegun = false;
  #bodyEnded = false;

  constructor(
    private readonly edge: Edge,
    private readonly request: IncomingMessage,
    private readonly response: ServerResponse,
    private readonly admitted: Admitted,
    private readonly route: Route,
  ) {
    this.#traceparent = admitted.traceparent ?? newTraceparent();
    admitted.headers.push('traceparent', this.#traceparent);
    edge.origins.describe(request.socket, admitted.host, request.rawHeaders, admitted.headers);
    admitted.headers.push(
      'host',
      admitted.host ?? new URL(edge.directory.context(route.context)!.monolith.origin).host,
    );
    this.#ownHeaders = admitted.headers.length;
  }

  start(): void {
    const { admitted, edge, response } = this;
    response.once('close', this.#onClose);
    if (admitted.body === 'none') return this.place();
    if (admitted.expects) response.writeContinue();
    if (admitted.body === 'sized' && admitted.length <= KEPT_BYTES) {
      this.deadline = edge.sweep.now + edge.limits.requestMs;
      edge.sweep.add(this);
      readSmall(this.request, (body) => {
        edge.sweep.delete(this);
        this.#body = body;
        this.guarded(() => this.place());
      });
      return;
    }
    this.#body = new Upload(this.request);
    this.place();
  }

  /** The body did not come in time. */
  expire(): void {
    this.edge.sweep.delete(this);
    this.#refuse({ status: 408, code: 'REQUEST_TIMEOUT', detail: 'The body took too long to arrive', close: true });
  }

  place(): void {
    if (this.#over) return;
    const state = this.edge.directory.context(this.route.context);
    if (!state) return this.#refuse(routeGone);
    const asking = this.edge.directory.canaries.length > 0 ? this.#caller.catchUp() : undefined;
    if (asking) return void asking.then(() => this.place()).catch((error: unknown) => this.#broken(error));
    this.#state = state;
    if (!this.admitted.reads) {
      if (state.holding && this.#ownerWait.believes(state)) return this.#ownerWait.hold();
      return this.#send(sideOfCommand(state), state);
    }
    const candidate = state.stage === 'canary' && this.#caller.isCandidate(state.context);
    const token = this.#known()?.[state.context];
    const side = sideOfRead(state, { candidate, token });
    // Behind a candidate stands the owner, which has everything that the caller may have seen.
    const backed = side === 'service' && state.owner === 'monolith' && !(token && token.epoch > state.epoch);
    if (backed && !(this.#body instanceof Upload)) this.#sendToCandidate(state);
    else this.#send(side, state);
  }

  /** A read of a canary: what goes wrong there is evidence, and the monolith's answer is the caller's. */
  #sendToCandidate(state: ContextState): void {
    const { breaker } = state.service!;
    // While one request tries a broken candidate, the others would wait for how it ends.
    if (breaker.state === CircuitState.HalfOpen) return this.#send('monolith', state);
    const before = this.#attempt;
    breaker
      .execute(
        () =>
          new Promise<void>((answered, failed) => {
            this.#send('service', state, (ok) => (ok ? answered() : failed(candidateFailed)));
          }),
      )
      .catch((error: unknown) => {
        // The circuit is open: nothing was sent.
        if (error !== candidateFailed && this.#attempt === before) this.guarded(() => this.#send('monolith', state));
      });
  }

  /** `settle`: told once whether a candidate has answered; with it the monolith stands behind the attempt. */
  #send(side: Side, state: ContextState, settle?: (ok: boolean) => void): void {
    const { admitted, edge } = this;
    const headers = admitted.headers;
    headers.length = this.#ownHeaders;
    const tokens = this.#known();
    if (tokens) headers.push('banyan-consistency', formatTokens(tokens));
    if (edge.directory.canaries.length > 0)
      headers.push('banyan-placement', this.#caller.placement(state, side, tokens));
    if (this.#body instanceof Upload && admitted.body === 'sized')
      headers.push('content-length', String(admitted.length));
    const { limits } = edge;
    const limitMs = settle ? limits.candidateMs : admitted.upload ? limits.uploadMs : limits.requestMs;
    const attempt = new Attempt(this, edge.sweep, side, limitMs, settle);
    this.#attempt = attempt;
    const upstream = side === 'service' ? state.service! : state.monolith;
    upstream.dispatch({ method: admitted.method, path: admitted.target, headers, body: this.#body }, attempt);
  }

  sendTo(side: Side, state: ContextState): void {
    this.#state = state;
    this.#send(side, state);
  }

  /** What the caller's reads must not be older than; undefined: nothing is known. */
  #known(): ConsistencyTokens | undefined {
    return this.admitted.consistency === undefined && this.edge.memory.empty ? undefined : this.#caller.tokens;
  }

  get #caller(): Caller {
    return (this.#asks ??= new Caller(this.edge, this.admitted));
  }

  get #ownerWait(): OwnerWait {
    return (this.#waits ??= new OwnerWait(this.edge, this.route.context, this));
  }

  /* What an attempt tells. */

  answered(attempt: Attempt, status: number, headers: AnswerHeaders): void {
    try {
      this.#onAnswered(attempt, status, headers);
    } catch (error) {
      this.#broken(error);
    }
  }

  #onAnswered(attempt: Attempt, status: number, headers: AnswerHeaders): void {
    const { admitted } = this;
    if (status === 503 && !admitted.reads && headers['banyan-fenced'] !== undefined) {
      const again = this.#body instanceof Upload ? this.#body.kept : (this.#body ?? null);
      if (again !== undefined && this.#ownerWait.open) {
        attempt.discard();
        this.#body = again;
        return this.#ownerWait.fenced(attempt.side, String(headers['banyan-fenced']), this.#state!);
      }
    }
    if (attempt.settle) {
      // What a copy does not know may only not have come yet: the caller may have heard of it from another context.
      const behind = headers['banyan-behind'] !== undefined || status === 404;
      if (behind || status >= 500) return this.#fallBack(attempt, behind ? 'behind' : status);
      attempt.settle(true);
    }
    this.#commit(attempt, status, headers);
  }

  data(attempt: Attempt, chunk: Buffer): void {
    if (this.#queued) return void this.#queued.push(() => this.data(attempt, chunk));
    const { response } = this;
    this.#bodyBegun = true;
    this.#copy?.add(chunk);
    if (this.#left > 0 && (this.#left -= chunk.length) === 0) {
      this.#bodyEnded = true;
      // As text, which Node sends in one piece with the head; a Buffer is a piece of its own, and writev costs three times as much.
      if (chunk.length <= SMALL_BYTES) response.end(chunk.toString('latin1'), 'latin1');
      else response.end(chunk);
    } else if (!response.write(chunk)) {
      attempt.pause();
      response.once('drain', attempt.resume);
    }
  }

  ended(attempt: Attempt): void {
    if (this.#queued) return void this.#queued.push(() => this.ended(attempt));
    if (!this.#bodyEnded) this.response.end();
    this.#finish(attempt.side, this.response.statusCode, attempt, this.response.statusCode >= 500);
    const { edge, route, admitted } = this;
    if (!this.#copy) return;
    const served = { side: attempt.side, answer: this.#copy.answer };
    edge.mirror.offer(mirrored(edge, route, admitted, this.#state!, this.#ownHeaders, served));
  }

  failed(attempt: Attempt, error: Error): void {
    this.guarded(() => this.#onFailed(attempt, error));
  }

  #onFailed(attempt: Attempt, error: Error): void {
    if (this.#queued) return void this.#queued.push(() => this.failed(attempt, error));
    if (this.#committed) {
      // A half answer must look like one.
      this.response.destroy();
      return this.#finish(attempt.side, this.response.statusCode, attempt, true);
    }
    if (attempt.settle) return this.#fallBack(attempt, error.message);
    const { side, begun } = attempt;
    if (begun && !this.admitted.reads) this.#lost ??= { error, side };
    if ((!begun || this.#isRepeatable) && this.#retries < this.#instances(side) && isReset(error)) {
      // The connection was closing, or its process is gone: the next instance has it, or the next owner.
      this.#retries += 1;
      return this.place();
    }
    this.edge.figures.served(this.route.context, side, performance.now() - attempt.from, true);
    this.#refuse(this.#lost ? failureOf(this.#lost.error, this.#lost.side) : failureOf(error, side), side);
  }

  /** May it be sent again although it may have gone out? */
  get #isRepeatable(): boolean {
    const { reads, keyed, method, path } = this.admitted;
    if (this.#body instanceof Upload) return false;
    return reads || (keyed && this.route.keyed.some((operation) => isOperation(operation, method, path)));
  }

  #instances(side: Side): number {
    const { monolith, service } = this.#state!;
    return (side === 'service' ? service : monolith)?.instances.length ?? 1;
  }

  #fallBack(attempt: Attempt, why: string | number): void {
    const { edge, route } = this;
    attempt.discard();
    const behind = why === 'behind';
    if (!behind) edge.figures.served(route.context, attempt.side, performance.now() - attempt.from, true);
    attempt.settle?.(behind);
    edge.meters.happened(behind ? 'behind' : 'fallback', route.context);
    this.#send('monolith', edge.directory.context(route.context) ?? this.#state!);
  }

  /** Once the caller knows of its write, every proxy does. */
  #commit(attempt: Attempt, status: number, headers: AnswerHeaders): void {
    const token = headers['banyan-consistency'];
    const told = token === undefined ? undefined : this.#caller.remember(String(token));
    if (!told || this.edge.directory.canaries.length === 0) return this.#answerWith(attempt, status, headers);
    this.#queued = [];
    told
      .then(() => {
        const queued = this.#queued!;
        this.#queued = undefined;
        if (this.#over) return;
        this.#answerWith(attempt, status, headers);
        for (const step of queued) step();
      })
      .catch((error: unknown) => this.#broken(error));
  }

  #answerWith(attempt: Attempt, status: number, headers: AnswerHeaders): void {
    const { admitted, edge, response } = this;
    const list = answerHeaders(headers);
    if (edge.servedBy) list.push('banyan-served-by', attempt.side);
    if (edge.closing || !this.request.complete) list.push('connection', 'close');
    const { 'content-length': length, 'content-type': type } = headers;
    if (type !== undefined && String(type).startsWith('text/event-stream')) attempt.limitMs = Infinity;
    else if (admitted.reads && this.#body === null && this.#isMirrored(status))
      this.#copy = new AnswerCopy(edge.mirror.maxBytes, status, headers);
    if (length !== undefined && admitted.method !== 'HEAD' && status !== 304 && status !== 204)
      this.#left = Number(length);
    response.writeHead(status, list);
    this.#committed = true;
    queueMicrotask(this.#flushHead);
  }

  /** Node keeps the head until there is some body, and who waits for events would wait in vain. By now it would be here. */
  readonly #flushHead = (): void => {
    if (!this.#bodyBegun && !this.#over) this.response.flushHeaders();
  };

  #isMirrored(status: number): boolean {
    const state = this.#state!;
    if (!state.service || status >= 500) return false;
    return state.stage !== 'monolith' && state.stage !== 'replicate' && this.edge.mirror.wants(this.admitted.method);
  }

  /* The end. */

  giveUp(): void {
    if (this.#lost) return this.#refuse(failureOf(this.#lost.error, this.#lost.side), this.#lost.side);
    this.#refuse(unavailable(`${this.route.context} is changing its owner: nothing was done, send it again`));
  }

  guarded(step: () => void): void {
    if (this.#over) return;
    try {
      step();
    } catch (error) {
      this.#broken(error);
    }
  }

  /** One request that we did not foresee must not end all the others. */
  #broken(error: unknown): void {
    rootLogger().error({ msg: 'a request could not be handled', err: error });
    if (this.#over) return;
    this.#letGo();
    if (!this.response.headersSent) return this.#refuse(unforeseen);
    this.response.destroy();
    this.#finish('proxy', this.response.statusCode, undefined, true);
  }

  /** Whoever works for it may stop. */
  #letGo(): void {
    this.#waits?.stop();
    this.#attempt?.discard(true);
    this.#attempt?.settle?.(true);
    if (this.#body instanceof Upload) this.#body.destroy();
  }

  #refuse(refusal: Refusal, side: Side | 'proxy' = 'proxy'): void {
    if (this.#over) return;
    const close = refusal.close || this.edge.closing || !this.request.complete;
    refuse(this.response, { ...refusal, close }, traceIdOf(this.#traceparent));
    this.#finish(side, refusal.status, undefined, true);
  }

  #finish(side: Side | 'proxy', status: number, attempt: Attempt | undefined, failed: boolean): void {
    if (this.#over) return;
    this.#over = true;
    const { admitted, edge, route } = this;
    this.response.off('close', this.#onClose);
    edge.sweep.delete(this);
    const now = performance.now();
    if (attempt) edge.figures.served(route.context, attempt.side, now - attempt.from, failed);
    edge.meters.answered(route.context, side, admitted.reads, status, (now - this.#from) / 1_000);
    edge.access.write({
      method: admitted.method,
      route: route.path,
      context: route.context,
      side,
      status,
      ms: Math.round((now - this.#from) * 100) / 100,
      traceId: traceIdOf(this.#traceparent),
    });
  }

  /** The client is gone. */
  readonly #onClose = (): void => {
    if (this.#over) return;
    this.#letGo();
    // 499, as nginx writes it: nobody's failure.
    this.#finish(this.#attempt?.side ?? 'proxy', 499, undefined, false);
  };
}
