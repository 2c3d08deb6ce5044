import { Controller, type ExecutionContext, createParamDecorator } from '@nestjs/common';
import { MessagePattern, NatsContext } from '@nestjs/microservices';
import { DomainError, errorKinds } from '@banyan/kernel';
import { z } from 'zod';
import type { EventEnvelope, GivenBack, Reply } from './envelope.js';
import { INPUT_INVALID, UPSTREAM_UNAVAILABLE, refusal } from './failures.js';
import { Receiver } from './receiver.js';
import { CALL, DELIVERY, GIVING_BACK } from './subjects.js';

/* What processes say to each other, over whatever Nest's transports speak. */

export { CALL, DELIVERY, GIVING_BACK };

/** How long receipts for events may take, ms. */
export const DELIVER = 8_000;

interface Signed {
  /** Shows that a process of ours has sent it: the guard of the app has looked before a handler sees it. */
  token: string;
}
export interface Call extends Signed {
  envelope: unknown;
}
export interface Delivery extends Signed {
  context: string;
  events: EventEnvelope[];
  traceparent?: string;
}
export interface Return extends Signed {
  context: string;
  back: GivenBack[];
}

const Message = createParamDecorator((_: undefined, context: ExecutionContext) =>
  context.switchToRpc().getData<unknown>(),
);

/** Where a broker has let the message through to: `<context>` or `<context>.<operation>`. Undefined without a broker. */
const Addressed = createParamDecorator((_: undefined, context: ExecutionContext): string | undefined => {
  const about = context.switchToRpc().getContext<unknown>();
  // banyan.<what>.<side>.<context>[.<operation>]
  return about instanceof NatsContext ? about.getSubject().split('.').slice(3).join('.') : undefined;
});

/** The way in for messages of other processes. All handlers answer with a `Reply`, whatever happens. */
@Controller()
export class RpcController {
  constructor(private readonly receiver: Receiver) {}

  @MessagePattern(CALL)
  call(@Message() { envelope }: Call, @Addressed() to: string | undefined): Promise<Reply> {
    const { context, operation } = (envelope ?? {}) as { context?: unknown; operation?: unknown };
    return misdirected(to, `${String(context)}.${String(operation)}`) ?? this.receiver.call(envelope);
  }

  @MessagePattern(DELIVERY)
  deliver(@Message() { context, events, traceparent }: Delivery, @Addressed() to: string | undefined): Promise<Reply> {
    return misdirected(to, context) ?? answered(this.receiver.deliver(context, events, traceparent));
  }

  @MessagePattern(GIVING_BACK)
  giveBack(@Message() { context, back }: Return, @Addressed() to: string | undefined): Promise<Reply> {
    return misdirected(to, context) ?? answered(this.receiver.giveBack(context, back));
  }
}

/** A broker's permissions are about subjects: a message that says something else than its subject goes round them. */
const misdirected = (to: string | undefined, says: string): Promise<Reply> | undefined =>
  to === undefined || to === says
    ? undefined
    : Promise.resolve(refusal(new DomainError('FORBIDDEN', 'forbidden', `A message to ${to} cannot be about ${says}`)));

const answered = (work: Promise<unknown>): Promise<Reply> =>
  work.then(
    (output): Reply => ({ ok: true, output, meta: {} }),
    (error: unknown) =>
      refusal(DomainError.is(error) ? error : new DomainError('INTERNAL', 'internal', 'The events could not be taken')),
  );

/** What a reply holds; throws what it refuses with. */
export function outputOf<T>(reply: Reply): T {
  if (reply.ok) return reply.output as T;
  throw new DomainError(reply.error.code, reply.error.kind, reply.error.message, reply.error.data);
}

/** In the place of a call that no transport can carry, and of an answer. */
export const inputTooLong = (operation: string): Reply =>
  refusal(new DomainError(INPUT_INVALID, 'too_large', `The input of ${operation} is too long to be sent`));
export const tooLong = (): Reply =>
  refusal(new DomainError('INTERNAL', 'internal', 'The answer is too long to be sent'));

const Failure = z.object({ code: z.string(), kind: z.enum(errorKinds), message: z.string() });

/** What the other side's guard or Nest itself says, or a connection that broke before the answer. */
export function broken(context: string, error: unknown): Reply {
  const { data } = Failure.safeParse(error);
  if (data) return refusal(new DomainError(data.code, data.kind, data.message));
  return refusal(
    new DomainError(UPSTREAM_UNAVAILABLE, 'unavailable', `The connection to ${context} broke before its answer`, {
      context,
      retryAfterMs: 1000,
    }),
  );
}
