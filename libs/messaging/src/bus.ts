import { Logger } from '@nestjs/common';
import { type AnyContract, type AnyOperation, DomainError, anonymous, newId } from '@banyan/kernel';
import { currentTraceparent, withSpan } from '@banyan/platform/telemetry';
import {
  type CircuitBreakerPolicy,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleWhenResult,
} from 'cockatiel';
import type { Endpoint } from './endpoint.js';
import type { Envelope, Reply } from './envelope.js';
import { CONTEXT_BEHIND, CONTEXT_MOVED, moved, neverRan, refusal } from './failures.js';
import type { CallOptions, Client } from './handlers.js';
import type { Decision, Placement } from './placement.js';
import { type CallScope, currentScope, noteReply } from './scope.js';

/** Longest wait for an answer when nobody says otherwise, ms. */
const DEFAULT_TIMEOUT = 10_000;

/** Longest time a call is held while its context changes owner, ms: bounded, then 503. */
export const HOLD = 2_000;

/** How long a side that does not own the context may take over a read before the owner is asked, ms. */
const PATIENCE = 1_000;

/** After so many failed reads in a row such a side is left alone, and tried again so much later, ms: as the proxy does. */
const FAILURES = 5;
const RETRY = 1_000;

/** Carries calls to the side that owns a context. */
export class Bus {
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #log = new Logger('Bus');
  /** By context: how the side fares that reads without owning it. */
  readonly #candidates = new Map<string, CircuitBreakerPolicy>();

  constructor(
    private readonly placement: Placement,
    private readonly holdMs: number = HOLD,
  ) {}

  /** Serves a context in this process. */
  serve(endpoint: Endpoint): void {
    this.#endpoints.set(endpoint.contract.name, endpoint);
  }

  endpoint(context: string): Endpoint | undefined {
    return this.#endpoints.get(context);
  }

  /** The typed client of a contract: one method per query and command. */
  client<C extends AnyContract>(contract: C): Client<C> {
    const methods = Object.entries<AnyOperation>(contract.operations).map(([name, { kind }]) => {
      const operation = { context: contract.name, name, kind, span: `${contract.name}.${name}` };
      return [name, (input: unknown, options?: CallOptions) => this.#call(operation, input, options)];
    });
    return Object.freeze(Object.fromEntries(methods)) as Client<C>;
  }

  async #call(operation: Called, input: unknown, options?: CallOptions) {
    const scope = currentScope();
    if (scope?.writing)
      throw new Error(
        `${operation.span} was called inside a transaction of ${scope.writing}: no call may leave a transaction. ` +
          'Call before it (prepare), or after it (an event, a saga step).',
      );
    const at = Date.now();
    const { context } = operation;
    const deadline = Math.min(at + (options?.timeoutMs ?? DEFAULT_TIMEOUT), scope?.deadline ?? Infinity);
    const actor = options?.actor ?? scope?.actor ?? anonymous;
    const envelope = new OwnEnvelope(
      context,
      operation.name,
      input,
      options?.idempotencyKey,
      actor,
      at,
      deadline,
      scope,
    );
    let where: Decision = held;
    const send = () => this.#send((where = this.placement.decide(context, operation.kind, envelope)), envelope);
    let reply = await withSpan(operation.span, undefined, send);
    // Sent again while the context changes owner, or its process starts again: the message has not run.
    const holdUntil = Math.min(at + this.holdMs, deadline);
    while (!reply.ok && neverRan(reply.error.code) && Date.now() < holdUntil) {
      if (reply.error.code === CONTEXT_MOVED && where.at !== 'hold' && where.side)
        this.placement.moved?.(context, where.side);
      await this.placement.changed(context, holdUntil - Date.now());
      reply = await withSpan(operation.span, undefined, send);
    }
    if (scope && operation.kind === 'command') noteRun(scope, reply);
    if (!reply.ok) throw new DomainError(reply.error.code, reply.error.kind, reply.error.message, reply.error.data);
    if (scope) noteReply(scope, context, reply.meta);
    return reply.output;
  }

  /* Not async: each async function on this path costs a promise and a turn of the microtask queue per call. */
  #send(where: Decision, envelope: Envelope): Promise<Reply> {
    if (where.at === 'hold') return Promise.resolve(refusal(moved(envelope.context)));
    envelope.epoch = where.epoch;
    if (where.at === 'local') return this.#local(envelope);
    // Within the process the trace goes along by itself.
    envelope.traceparent = currentTraceparent();
    return where.otherwise ? this.#read(where, where.otherwise, envelope) : where.via.call(envelope);
  }

  /** Reads on a side that does not own the context; the owner is asked when it is behind, gone, silent or broken. */
  async #read(where: Decision & { at: 'remote' }, otherwise: Decision, envelope: Envelope): Promise<Reply> {
    const candidate = this.#candidate(envelope.context);
    const ask = () => where.via.call(envelope, Math.min(envelope.deadline, Date.now() + PATIENCE));
    if (candidate.state !== CircuitState.Closed) {
      // Now and then one read tries it again, and nobody waits for how that ends.
      if (candidate.state === CircuitState.Open) candidate.execute(ask).catch(() => {});
      return this.#send(otherwise, envelope);
    }
    const reply = await candidate.execute(ask);
    return isNoAnswer(reply) ? this.#send(otherwise, envelope) : reply;
  }

  #candidate(context: string): CircuitBreakerPolicy {
    let candidate = this.#candidates.get(context);
    if (!candidate) {
      candidate = circuitBreaker(handleWhenResult(isFailure), {
        halfOpenAfter: RETRY,
        breaker: new ConsecutiveBreaker(FAILURES),
      });
      let well = true;
      candidate.onStateChange((state) => {
        if (state === CircuitState.HalfOpen || (state === CircuitState.Closed) === well) return;
        well = !well;
        if (well) this.#log.log({ msg: 'the candidate is read again', context });
        else this.#log.warn({ msg: 'the candidate fails: the owner is read instead', context });
      });
      this.#candidates.set(context, candidate);
    }
    return candidate;
  }

  #local(envelope: Envelope): Promise<Reply> {
    const endpoint = this.#endpoints.get(envelope.context);
    if (!endpoint) throw new Error(`Nothing serves ${envelope.context} in this process`);
    return endpoint.handle(envelope);
  }
}

/** Made in this process: the id is made when somebody asks for it, which a query that is served here never does (10 %). */
class OwnEnvelope implements Envelope {
  #id: string | undefined;
  traceparent: string | undefined = undefined;
  epoch: number | undefined = undefined;
  readonly placement: Envelope['placement'];
  readonly consistency: Envelope['consistency'];

  constructor(
    readonly context: string,
    readonly operation: string,
    readonly input: unknown,
    readonly idempotencyKey: string | undefined,
    readonly actor: Envelope['actor'],
    readonly at: number,
    readonly deadline: number,
    scope: CallScope | undefined,
  ) {
    this.placement = scope?.placement;
    this.consistency = scope?.consistency;
  }

  get id(): string {
    return (this.#id ??= newId());
  }

  toJSON(): Envelope {
    return { ...this, id: this.id };
  }
}

/** An operation as its client knows it. */
interface Called {
  context: string;
  name: string;
  kind: AnyOperation['kind'];
  span: string;
}

const held: Decision = { at: 'hold' };

/** Somebody else may have an answer. */
const isNoAnswer = (reply: Reply): reply is Reply & { ok: false } =>
  !reply.ok && (reply.error.kind === 'unavailable' || reply.error.kind === 'internal');

/** A side that lacks what the caller has written, or has just lost the context, is well. */
const isFailure = (reply: unknown): boolean =>
  isNoAnswer(reply as Reply) && ![CONTEXT_BEHIND, CONTEXT_MOVED].includes((reply as Reply & { ok: false }).error.code);

/** A command that was refused has had no effect; one whose answer got lost may have. */
function noteRun({ seen }: CallScope, reply: Reply): void {
  if (
    reply.ok ||
    (!neverRan(reply.error.code) && (reply.error.kind === 'unavailable' || reply.error.kind === 'internal'))
  )
    seen.ran = true;
}
