import { Inject, Injectable, SetMetadata, applyDecorators } from '@nestjs/common';
import type { AnyContract, AnyEvent } from '@banyan/kernel';
import type { CommandContext, EventOf, JobContext } from './handlers.js';

export const SERVES = Symbol('banyan.serves');
export const SUBSCRIBES = Symbol('banyan.subscribes');
export const ON = Symbol('banyan.on');
export const JOB = Symbol('banyan.job');
export const SAGA = Symbol('banyan.saga');

/** Marks the class that serves a contract: it implements `Handlers<typeof contract>`. */
export const Serves = (contract: AnyContract) => applyDecorators(Injectable(), SetMetadata(SERVES, contract));

/** Marks the class whose `@On` methods react to other contexts' events, on behalf of `contract`. */
export const Subscribes = (contract: AnyContract) => applyDecorators(Injectable(), SetMetadata(SUBSCRIBES, contract));

type Reaction<E extends AnyEvent> = (event: EventOf<E>, ctx: CommandContext) => Promise<void>;

/** The method reacts to `event`, inside one transaction with the inbox row that makes it happen once. */
export function On<E extends AnyEvent>(event: E) {
  return <M extends Reaction<E>>(target: object, name: string | symbol, descriptor: TypedPropertyDescriptor<M>) => {
    SetMetadata(ON, event)(target, name, descriptor as PropertyDescriptor);
  };
}

export interface JobOptions {
  /** `<context>.<what>`: the job follows that context's owner. */
  name: string;
  /** How often the sweep runs, ms. */
  everyMs: number;
}

type JobMethod = (ctx: JobContext) => Promise<void>;

/** The method is a job: a wake-up that looks at the rows and does what is due. Running twice is harmless. */
export function Job(options: JobOptions) {
  return (target: object, name: string | symbol, descriptor: TypedPropertyDescriptor<JobMethod>) => {
    SetMetadata(JOB, options)(target, name, descriptor as PropertyDescriptor);
  };
}

/** Marks the class that holds a saga: it has a `readonly saga = defineSaga({...})`. */
export const HoldsSaga = () => applyDecorators(Injectable(), SetMetadata(SAGA, true));

export const clientToken = (contract: AnyContract): string => `banyan.client.${contract.name}`;

/** Injects the typed client of a context. */
export const InjectClient = (contract: AnyContract) => Inject(clientToken(contract));
