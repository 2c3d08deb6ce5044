import { type AnyContract, type AnyOperation, DomainError, anonymous, newId } from '@banyan/kernel';
import { currentTraceparent, withSpan } from '@banyan/platform/telemetry';
import { DEADLINE_EXCEEDED, type Endpoint } from './endpoint.js';
import type { Envelope, Reply } from './envelope.js';
import type { CallOptions, Client } from './handlers.js';
import type { Placement } from './placement.js';
import { currentScope, noteReply } from './scope.js';
import { CONTEXT_MOVED } from './unit-of-work.js';

/** Longest wait for an answer when nobody says otherwise, ms. */
const DEFAULT_TIMEOUT = 10_000;

/** Longest time a call is held while its context changes owner, ms: bounded, then 503. */
const HOLD = 2_000;

/** Carries calls to the side that owns a context. */
export class Bus {
  readonly #endpoints = new Map<string, Endpoint>();

  constructor(private readonly placement: Placement) {}

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
    const envelope = new OwnEnvelope(context, operation.name, input, options?.idempotencyKey, actor, at, deadline);
    const send = () => this.#send(operation, envelope);
    let reply = await withSpan(operation.span, undefined, send);
    // Sent again while the context changes owner: a fenced message was never run.
    const holdUntil = Math.min(at + HOLD, envelope.deadline);
    while (!reply.ok && reply.error.code === CONTEXT_MOVED && Date.now() < holdUntil) {
      await this.placement.changed(context, holdUntil - Date.now());
      reply = await withSpan(operation.span, undefined, send);
    }
    if (!reply.ok) throw new DomainError(reply.error.code, reply.error.kind, reply.error.message, reply.error.data);
    if (scope) noteReply(scope, context, reply.meta);
    return reply.output;
  }

  /* Not async: each async function on this path costs a promise and a turn of the microtask queue per call. */
  #send({ context, kind }: Called, envelope: Envelope): Promise<Reply> {
    const where = this.placement.decide(context, kind, envelope);
    if (where.at === 'hold') return Promise.resolve(held(context));
    envelope.epoch = where.epoch;
    if (where.at === 'local') return this.#local(envelope);
    // Within the process the trace goes along by itself.
    envelope.traceparent = currentTraceparent();
    return within(envelope, where.via.call(envelope));
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

  constructor(
    readonly context: string,
    readonly operation: string,
    readonly input: unknown,
    readonly idempotencyKey: string | undefined,
    readonly actor: Envelope['actor'],
    readonly at: number,
    readonly deadline: number,
  ) {}

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

const held = (context: string): Reply => ({
  ok: false,
  error: {
    code: CONTEXT_MOVED,
    kind: 'unavailable',
    message: `${context} is changing owner`,
    data: { retryAfterMs: 1000 },
  },
});

/** The answer, or a failure when the deadline comes first. */
async function within(envelope: Envelope, answer: Promise<Reply>): Promise<Reply> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Reply>((resolve) => {
    timer = setTimeout(
      () =>
        resolve({
          ok: false,
          error: {
            code: DEADLINE_EXCEEDED,
            kind: 'unavailable',
            message: `No answer from ${envelope.context} in time`,
          },
        }),
      Math.max(0, envelope.deadline - Date.now()),
    );
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
