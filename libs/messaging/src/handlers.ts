import type { Actor, AnyCommand, AnyContract, AnyEvent, AnyOperation } from '@banyan/kernel';
import type { z } from 'zod';
import type { Envelope } from './envelope.js';

type In<Op extends AnyOperation> = z.input<Op['input']>;
type Parsed<Op extends AnyOperation> = z.output<Op['input']>;
type Out<Op extends AnyOperation> = z.output<Op['output']>;
type Prepared<Op> = Op extends AnyCommand ? z.output<NonNullable<Op['prepared']>> : never;

/** How a caller sees a context. It cannot tell where the context runs. */
export type Client<C extends AnyContract> = {
  readonly [K in keyof C['operations'] & string]: (
    input: In<C['operations'][K]>,
    options?: CallOptions,
  ) => Promise<Out<C['operations'][K]>>;
};

export interface CallOptions {
  /** At most 255 characters; scoped to (actor, operation). */
  idempotencyKey?: string;
  /** Defaults to the actor of the request being served. */
  actor?: Actor;
  /** Longest wait for the answer, ms. Never later than the deadline of the request being served. */
  timeoutMs?: number;
}

/** What a handler knows of the call. `now` is the envelope's time: the same in a replay. */
export interface QueryContext {
  readonly now: Date;
  readonly actor: Actor;
  readonly envelope: Envelope;
}

export interface CommandContext<P = unknown> extends QueryContext {
  /** What `prepare` found out before the transaction; undefined when the command prepares nothing. */
  readonly prepared: P;
  /** The next id that this message hands out: the same in a replay. */
  newId(): string;
  /** Publishes an event in the command's transaction. `aggregateId` is the id of the thing it is about. */
  emit<E extends AnyEvent>(event: E, aggregateId: string, data: z.input<E['data']>): void;
}

/** What the serving class implements; commands run inside one transaction of their context. */
export type Handlers<C extends AnyContract> = {
  [K in keyof C['queries'] & string]: (
    input: Parsed<C['queries'][K]>,
    ctx: QueryContext,
  ) => Promise<In2<C['queries'][K]>>;
} & {
  [K in keyof C['commands'] & string]: (
    input: Parsed<C['commands'][K]>,
    ctx: CommandContext<Prepared<C['commands'][K]>>,
  ) => Promise<In2<C['commands'][K]>>;
};
type In2<Op extends AnyOperation> = z.input<Op['output']>;

/* A command without `prepared` comes out of the inference of defineContext with `any` there. */
type IsAny<T> = 0 extends 1 & T ? true : false;
type PreparedKeys<C extends AnyContract> = {
  [K in keyof C['commands']]: IsAny<Prepared<C['commands'][K]>> extends true
    ? never
    : Prepared<C['commands'][K]> extends undefined
      ? never
      : K;
}[keyof C['commands']] &
  string;

/** Work before the transaction (network, slow hashing), one function per command that declares `prepared`. */
export type Preparations<C extends AnyContract> = {
  [K in PreparedKeys<C>]: (input: Parsed<C['commands'][K]>, ctx: QueryContext) => Promise<Prepared<C['commands'][K]>>;
};

/** An event as a subscriber's method gets it. */
export interface EventOf<E extends AnyEvent> {
  readonly id: string;
  readonly type: string;
  readonly aggregateId: string;
  readonly version: number;
  readonly at: Date;
  readonly data: z.output<E['data']>;
}

/** What a job's method gets: jobs act as the system and call their own context's commands. */
export interface JobContext {
  readonly now: Date;
  /** The id given to `wake`, or undefined when the sweep runs it. */
  readonly id?: string;
}
