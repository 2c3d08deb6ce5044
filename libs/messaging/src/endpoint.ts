import { Logger } from '@nestjs/common';
import { type AnyContract, type AnyOperation, DomainError } from '@banyan/kernel';
import { databaseFailure } from '@banyan/platform/database';
import { metrics } from '@banyan/platform/telemetry';
import type { Envelope, Failure, Reply, ReplyMeta } from './envelope.js';
import { CONTEXT_BEHIND, DEADLINE_EXCEEDED, INPUT_INVALID, OPERATION_UNKNOWN } from './failures.js';
import type { QueryContext } from './handlers.js';
import { once } from './idempotency.js';
import type { Placement } from './placement.js';
import { newScope, runInScope } from './scope.js';
import type { UnitOfWork, WritingContext } from './unit-of-work.js';

type Handler = (input: unknown, ctx: unknown) => Promise<unknown>;
interface Operation {
  def: AnyOperation;
  run: Handler;
  prepare?: Handler;
  meter: ReturnType<typeof metrics.operation>;
}

/** What a query knows of its call. Few ask for the time. */
class Asked implements QueryContext {
  constructor(readonly envelope: Envelope) {}

  get now(): Date {
    return new Date(this.envelope.at);
  }

  get actor(): Envelope['actor'] {
    return this.envelope.actor;
  }
}

const nothing: ReplyMeta = Object.freeze({});

/** Serves one context: the only way in, for calls from this process and from others. */
export class Endpoint {
  readonly #operations = new Map<string, Operation>();
  readonly #log: Logger;

  /** `server` implements Handlers<typeof contract>, and may have `prepare`. A missing handler is told at once. */
  constructor(
    readonly contract: AnyContract,
    server: object,
    private readonly unit: UnitOfWork,
    private readonly caughtUp?: Placement['caughtUp'],
  ) {
    this.#log = new Logger(`bus.${contract.name}`);
    const methods = server as Record<string, Handler | undefined> & { prepare?: Record<string, Handler> };
    for (const [name, def] of Object.entries<AnyOperation>(contract.operations)) {
      const run = methods[name];
      if (typeof run !== 'function')
        throw new Error(`${server.constructor.name} does not serve ${contract.name}.${name}`);
      this.#operations.set(name, {
        def,
        run: run.bind(server),
        prepare: methods.prepare?.[name],
        meter: metrics.operation(contract.name, name, unit.side),
      });
    }
  }

  /** Never throws: a failure is an answer. */
  async handle(envelope: Envelope): Promise<Reply> {
    const operation = this.#operations.get(envelope.operation);
    const started = performance.now();
    let reply: Reply;
    try {
      if (!operation)
        throw new DomainError(OPERATION_UNKNOWN, 'not_found', `${envelope.context} has no ${envelope.operation}`);
      if (Date.now() > envelope.deadline)
        throw new DomainError(DEADLINE_EXCEEDED, 'unavailable', 'Nobody waits for this answer any more');
      if (operation.def.kind === 'query') {
        // Written out here: a function of its own would cost every query one more promise.
        const input = parse(operation.def, envelope);
        if (envelope.consistency) await this.#seeOwnWrites(envelope);
        const output = await operation.run(input, new Asked(envelope));
        reply = { ok: true, output: operation.def.output.parse(output), meta: nothing };
      } else reply = await this.#command(operation, envelope);
    } catch (error) {
      reply = { ok: false, error: this.#failure(envelope, error) };
    }
    operation?.meter.observe(reply.ok ? 'ok' : reply.error.kind, (performance.now() - started) / 1000);
    return reply;
  }

  async #command({ def, run, prepare }: Operation, envelope: Envelope): Promise<Reply> {
    const input = parse(def, envelope);
    const at = new Date(envelope.at);
    const repeatable = def.kind === 'command' && def.repeatable === true;
    const prepared =
      envelope.prepared ??
      (prepare &&
        (await runInScope(newScope(envelope.actor, envelope.deadline), () =>
          prepare(input, { now: at, actor: envelope.actor, envelope }),
        )));
    const cause = { id: envelope.id, at, actor: envelope.actor, envelope, prepared };
    const meta: ReplyMeta = {};
    const { output, replayed } = await this.unit.run(
      cause,
      (ctx: WritingContext) => {
        const effect = async () => def.output.parse(await run(input, ctx));
        return once(repeatable ? undefined : envelope.idempotencyKey, envelope, input, ctx, effect);
      },
      (token) => (meta.token = token),
    );
    meta.replayed = replayed;
    return { ok: true, output, meta };
  }

  /** What the caller has written on the other side must be here by now, or somebody else has to answer. */
  async #seeOwnWrites({ context, consistency }: Envelope): Promise<void> {
    const token = consistency?.[context];
    if (!token || token.side === this.unit.side || !this.caughtUp) return;
    if (await this.caughtUp(this.unit.db, token)) return;
    throw new DomainError(CONTEXT_BEHIND, 'unavailable', `${context} has not got your last write here yet`, {
      context,
      retryAfterMs: 1000,
    });
  }

  #failure(envelope: Envelope, thrown: unknown): Failure {
    const error = databaseFailure(thrown) ?? thrown;
    if (DomainError.is(error)) return { code: error.code, kind: error.kind, message: error.message, data: error.data };
    this.#log.error({ msg: `${envelope.context}.${envelope.operation} failed`, messageId: envelope.id, err: error });
    return { code: 'INTERNAL', kind: 'internal', message: 'Something went wrong here' };
  }
}

function parse(def: AnyOperation, envelope: Envelope): unknown {
  const result = def.input.safeParse(envelope.input);
  if (result.success) return result.data;
  throw new DomainError(INPUT_INVALID, 'invalid', `Invalid input for ${envelope.context}.${envelope.operation}`, {
    errors: result.error.issues.map((issue: { path: PropertyKey[]; message: string }) => ({
      pointer: issue.path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join(''),
      detail: issue.message,
    })),
  });
}
