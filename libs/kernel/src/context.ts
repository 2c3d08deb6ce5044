import { z } from 'zod';
import type { Actor } from './actor.js';
import { DomainError, type ErrorKind } from './errors.js';

type Errors = Record<string, ErrorKind>;

/**
 * What is no difference between two answers of one operation. JSON pointers into the output, in which a segment `*`
 * stands for any name or index.
 */
export interface ParityRules {
  ignore?: string[];
  unordered?: string[];
  /** Numbers that may differ by so much. */
  numbers?: Record<string, number>;
  /** Times that may differ by so many ms. */
  times?: Record<string, number>;
}

/** An input that can always be answered, and on whose behalf: as the system when nobody is named. */
export interface Example<I> {
  input: I;
  as?: Actor;
}

/** Further examples, made from what another query answers: ids that nobody can know beforehand. */
export interface Drawn<I> {
  from: AnyQuery;
  input: unknown;
  pick(output: unknown): Example<I>[];
}

/** Examples made from what the query `from` answers the system on `input`. */
export const drawn = <Q extends AnyQuery, I>(
  from: Q,
  input: z.input<Q['input']>,
  pick: (output: z.output<Q['output']>) => Example<I>[],
): Drawn<I> => ({ from, input, pick });

interface OperationSpec<I extends z.ZodType, O extends z.ZodType, E extends Errors> {
  input: I;
  output: O;
  /** Codes this operation may fail with, and what kind of failure each is. */
  errors?: E;
  /** Inputs that are always answerable: documentation, and probes of a quiet system. */
  examples?: z.input<I>[];
}

export interface QueryDef<
  I extends z.ZodType = z.ZodType,
  O extends z.ZodType = z.ZodType,
  E extends Errors = Errors,
> extends OperationSpec<I, O, E> {
  kind: 'query';
  parity?: ParityRules;
  drawn?: Drawn<z.input<I>>;
}

export interface CommandDef<
  I extends z.ZodType = z.ZodType,
  O extends z.ZodType = z.ZodType,
  E extends Errors = Errors,
  P extends z.ZodType = z.ZodType,
> extends OperationSpec<I, O, E> {
  kind: 'command';
  /** The aggregate that the command changes: commands with one key are ordered. */
  key(input: z.output<I>): string;
  /** Outcome of work done before the transaction (a provider's answer); it travels in the envelope. */
  prepared?: P;
  /**
   * The context's own rows make it happen once per `key` (a reservation per order): sent again, it answers how that
   * stands. Its idempotency keys need no row then, which is two statements less per call.
   */
  repeatable?: true;
}

export interface EventDef<D extends z.ZodType = z.ZodType> {
  kind: 'event';
  /** `<context>.<Name>`, filled in by defineContext. */
  name: string;
  version: number;
  /** The type of thing the event is about; events of one aggregate are delivered in order. */
  aggregate: string;
  data: D;
}

export function query<I extends z.ZodType, O extends z.ZodType, const E extends Errors = Record<never, never>>(
  spec: Omit<QueryDef<I, O, E>, 'kind'>,
): QueryDef<I, O, E> {
  return { kind: 'query', ...spec };
}

export function command<
  I extends z.ZodType,
  O extends z.ZodType,
  const E extends Errors = Record<never, never>,
  P extends z.ZodType = z.ZodUndefined,
>(spec: Omit<CommandDef<I, O, E, P>, 'kind'>): CommandDef<I, O, E, P> {
  return { kind: 'command', ...spec };
}

export function event<D extends z.ZodType>(version: number, aggregate: string, data: D): EventDef<D> {
  return { kind: 'event', name: '', version, aggregate, data };
}

/* The loosest shapes: a contract of any context fits them. */
/* eslint-disable @typescript-eslint/no-explicit-any */
export type AnyQuery = QueryDef<any, any, any>;
export type AnyCommand = CommandDef<any, any, any, any>;
export type AnyOperation = AnyQuery | AnyCommand;
export type AnyEvent = EventDef<any>;
/* eslint-enable @typescript-eslint/no-explicit-any */

/** `PUT /v1/cart/items/{sku}` */
export type KeyedWrite = `${'POST' | 'PUT' | 'PATCH' | 'DELETE'} /${string}`;

export interface ContextSpec<
  Q extends Record<string, AnyQuery>,
  C extends Record<string, AnyCommand>,
  E extends Record<string, AnyEvent>,
> {
  /** Path prefixes that belong to the context at the edge. */
  routes: string[];
  /** The GET routes below them, and the query that each one answers with; `public`: without a token. */
  reads?: Record<`GET /${string}`, { query: keyof Q & string; public?: true }>;
  /** The writes below them that take an Idempotency-Key: with one, a router may send them again. */
  keyed?: KeyedWrite[];
  queries: Q;
  commands: C;
  events: E;
  /** Names of other contexts' operations that this context calls: on a broker it may call no others. */
  calls?: string[];
  /** Names of other contexts' events that this context reacts to. */
  subscribes: string[];
}

type CodesOf<Ops> = { [K in keyof Ops]: Ops[K] extends { errors?: infer E } ? keyof NonNullable<E> : never }[keyof Ops];

export interface Contract<
  Q extends Record<string, AnyQuery> = Record<string, AnyQuery>,
  C extends Record<string, AnyCommand> = Record<string, AnyCommand>,
  E extends Record<string, AnyEvent> = Record<string, AnyEvent>,
> extends ContextSpec<Q, C, E> {
  name: string;
  /** Queries and commands by name. */
  operations: Q & C;
  /** Every code of every operation, with its kind. */
  errors: Record<string, ErrorKind>;
  /** An error of this context's language, ready to throw. */
  fail(code: CodesOf<Q & C> & string, message: string, data?: DomainError['data']): DomainError;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyContract = Contract<any, any, any>;

/**
 * A context's contract: one value that is the source for types, validation, placement, subjects and docs.
 * Throws a TypeError when an operation name is used twice or one code has two kinds: both are mistakes of the author.
 */
export function defineContext<
  Q extends Record<string, AnyQuery>,
  C extends Record<string, AnyCommand>,
  E extends Record<string, AnyEvent>,
>(name: string, spec: ContextSpec<Q, C, E>): Contract<Q, C, E> {
  const errors: Record<string, ErrorKind> = {};
  for (const [operation, def] of Object.entries<AnyOperation>({ ...spec.queries, ...spec.commands })) {
    if (Object.hasOwn(spec.queries, operation) && Object.hasOwn(spec.commands, operation))
      throw new TypeError(`${name}.${operation} is both a query and a command`);
    for (const [code, kind] of Object.entries<ErrorKind>(def.errors ?? {})) {
      if (errors[code] && errors[code] !== kind) throw new TypeError(`${name}: ${code} is ${errors[code]} and ${kind}`);
      errors[code] = kind;
    }
  }
  const events = Object.fromEntries(
    Object.entries(spec.events).map(([event, def]) => [event, { ...def, name: `${name}.${event}` }]),
  ) as E;
  return {
    ...spec,
    name,
    events,
    errors,
    operations: { ...spec.queries, ...spec.commands },
    fail: (code, message, data) => new DomainError(code, errors[code] ?? 'internal', message, data),
  };
}
