import { type AnyContract, type AnyOperation, DomainError, newId } from '@banyan/kernel';
import { currentTraceparent, withSpan } from '@banyan/platform/telemetry';
import { DEADLINE_EXCEEDED, type Endpoint } from './endpoint.js';
import type { Envelope, Reply } from './envelope.js';
import type { CallOptions, Client } from './handlers.js';
import type { Placement } from './placement.js';
import { currentScope, noteReply } from './scope.js';
import { CONTEXT_MOVED } from './unit-of-work.js';

/** Longest wait for an answer when nobody says otherwise, ms. */
const DEFAULT_TIMEOUT = 10_000;

/** Longest time a call is held while its context changes owner, ms (DESIGN 8: bounded, then 503). */
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
    const methods = Object.entries<AnyOperation>(contract.operations).map(([name, def]) => [
      name,
      (input: unknown, options?: CallOptions) => this.#call(contract.name, name, def, input, options),
    ]);
    return Object.freeze(Object.fromEntries(methods)) as Client<C>;
  }

  async #call(context: string, operation: string, def: AnyOperation, input: unknown, options?: CallOptions) {
    const scope = currentScope();
    if (scope?.writing)
      throw new Error(
        `${context}.${operation} was called inside a transaction of ${scope.writing}: no call may leave a transaction. ` +
          'Call before it (prepare), or after it (an event, a saga step).',
      );
    const at = Date.now();
    const deadline = Math.min(at + (options?.timeoutMs ?? DEFAULT_TIMEOUT), scope?.deadline ?? Infinity);
    const envelope: Envelope = {
      id: newId(),
      context,
      operation,
      input,
      idempotencyKey: options?.idempotencyKey,
      actor: options?.actor ?? scope?.actor ?? { kind: 'anonymous' },
      at,
      deadline,
      traceparent: currentTraceparent(),
    };
    const reply = await withSpan(`${context}.${operation}`, undefined, () => this.#dispatch(def, envelope));
    if (!reply.ok) throw new DomainError(reply.error.code, reply.error.kind, reply.error.message, reply.error.data);
    noteReply(context, reply.meta);
    return reply.output;
  }

  /** Sends, and sends again while the context changes owner: a fenced message was never run. */
  async #dispatch(def: AnyOperation, envelope: Envelope): Promise<Reply> {
    const holdUntil = Math.min(Date.now() + HOLD, envelope.deadline);
    for (;;) {
      const where = this.placement.decide(envelope.context, def.kind, envelope);
      if (where.at !== 'hold') {
        envelope.epoch = where.epoch;
        const reply =
          where.at === 'local' ? await this.#local(envelope) : await within(envelope, where.via.call(envelope));
        if (reply.ok || reply.error.code !== CONTEXT_MOVED || Date.now() >= holdUntil) return reply;
      } else if (Date.now() >= holdUntil) {
        return {
          ok: false,
          error: {
            code: CONTEXT_MOVED,
            kind: 'unavailable',
            message: `${envelope.context} is changing owner`,
            data: { retryAfterMs: 1000 },
          },
        };
      }
      await this.placement.changed(envelope.context, holdUntil - Date.now());
    }
  }

  #local(envelope: Envelope): Promise<Reply> {
    const endpoint = this.#endpoints.get(envelope.context);
    if (!endpoint) throw new Error(`Nothing serves ${envelope.context} in this process`);
    return endpoint.handle(envelope);
  }
}

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
