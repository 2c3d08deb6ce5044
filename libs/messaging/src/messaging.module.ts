import {
  type BeforeApplicationShutdown,
  type DynamicModule,
  Inject,
  Module,
  type OnApplicationBootstrap,
  type OnModuleInit,
} from '@nestjs/common';
import { DiscoveryModule, DiscoveryService, MetadataScanner, Reflector } from '@nestjs/core';
import { type AnyContract, type AnyEvent, DomainError, type Side } from '@banyan/kernel';
import { Cache, noCache } from '@banyan/platform/cache';
import { type Database, databaseToken } from '@banyan/platform/database';
import { RedisLink } from '@banyan/platform/redis';
import { metrics } from '@banyan/platform/telemetry';
import { Bus, HOLD } from './bus.js';
import { JOB, ON, SAGA, SERVES, SUBSCRIBES, type JobOptions, clientToken } from './decorators.js';
import { Endpoint } from './endpoint.js';
import type { EventEnvelope, GivenBack } from './envelope.js';
import { CONTEXT_MOVED, hasMoved, moved, neverRan } from './failures.js';
import type { JobContext } from './handlers.js';
import { keepTidy } from './housekeeping.js';
import { Inbox, type Reaction } from './inbox.js';
import { Jobs, type JobsOptions } from './jobs.js';
import type { EventConsumer } from './jetstream-consumer.js';
import type { EventStreams } from './jetstream.js';
import { KeptAnswers } from './kept-answers.js';
import { type Decision, type Placement, allLocal } from './placement.js';
import { Receiver } from './receiver.js';
import { type Deliver, Relay, type RelayOptions, relayDefaults } from './relay.js';
import type { SagaDefinition } from './saga.js';
import { SagaRunner } from './saga-runner.js';
import { Sagas } from './sagas.js';
import { takeTurn } from './turn.js';
import { UnitOfWork } from './unit-of-work.js';

export interface MessagingOptions {
  /** Every contract of the system: what may be called, and who subscribes to what. */
  contracts: readonly AnyContract[];
  /** Whose databases these are: this process may write a context while that side owns it. */
  side: Side;
  placement?: Placement;
  jobs: JobsOptions;
  relay?: Partial<RelayOptions>;
  /** The broker's streams, where there is one: events go through them when they are `publishing`, and are taken from them. */
  streams?: EventStreams;
  /** How long a call is held while its context changes owner, ms. */
  holdMs?: number;
}

const OPTIONS = Symbol('banyan.messaging.options');
const PLACEMENT = Symbol('banyan.placement');

/** One context as this process hosts it. */
interface Hosted {
  unit: UnitOfWork;
  relay: Relay;
  sagas: SagaRunner;
  inbox?: Inbox;
  /** Takes its events from its stream. */
  consumer?: EventConsumer;
}

/**
 * Wires the contexts found in the app: endpoints, inboxes, relays, sagas and jobs. A context whose code and contract
 * disagree (a handler missing, a subscription too many) stops the start, and says what is wrong.
 */
@Module({ imports: [DiscoveryModule] })
export class MessagingModule implements OnModuleInit, OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #hosted = new Map<string, Hosted>();
  readonly #subscribersOf: (event: string) => readonly string[];
  #stopTidying: (() => void) | undefined;

  static forRoot(options: MessagingOptions): DynamicModule {
    const placement = options.placement ?? allLocal;
    const clients = options.contracts.map((contract) => ({
      provide: clientToken(contract),
      useFactory: (bus: Bus) => bus.client(contract),
      inject: [Bus],
    }));
    const local = isLocal(placement);
    return {
      module: MessagingModule,
      global: true,
      providers: [
        { provide: OPTIONS, useValue: options },
        { provide: PLACEMENT, useValue: placement },
        { provide: Bus, useFactory: () => new Bus(placement, options.holdMs) },
        { provide: Receiver, useFactory: (bus: Bus) => new Receiver(bus), inject: [Bus] },
        {
          provide: Jobs,
          inject: [{ token: RedisLink, optional: true }],
          useFactory: (redis?: RedisLink) => new Jobs(options.jobs, local, redis),
        },
        {
          provide: KeptAnswers,
          inject: [{ token: Cache, optional: true }],
          useFactory: (cache: Cache = noCache) => new KeptAnswers(cache, placement),
        },
        Sagas,
        ...clients,
      ],
      exports: [Bus, Receiver, Jobs, KeptAnswers, Sagas, ...clients.map(({ provide }) => provide)],
    };
  }

  constructor(
    @Inject(OPTIONS) private readonly options: MessagingOptions,
    @Inject(PLACEMENT) private readonly placement: Placement,
    @Inject('Databases') private readonly databases: Map<string, Database>,
    private readonly bus: Bus,
    private readonly receiver: Receiver,
    private readonly jobs: Jobs,
    private readonly sagas: Sagas,
    private readonly discovery: DiscoveryService,
    private readonly scanner: MetadataScanner,
    private readonly reflector: Reflector,
  ) {
    this.#subscribersOf = subscribersIn(options.contracts);
  }

  onModuleInit(): void {
    const found = this.#discover();
    for (const { contract, instance } of found.servers)
      this.#host(contract, instance, found.reactions.get(contract.name));
    for (const definition of found.sagas) {
      const hosted = this.#hosted.get(definition.name.split('.')[0]!);
      if (!hosted) throw new Error(`The saga ${definition.name} belongs to no context served here`);
      hosted.sagas.add(definition);
    }
    for (const { options, run } of found.jobs) this.jobs.add(options.name, { everyMs: options.everyMs, run });
    this.placement.connect?.(this.receiver);
    this.placement.onChange?.((context) => {
      const hosted = this.#hosted.get(context);
      hosted?.relay.wake();
      hosted?.sagas.wake();
      hosted?.consumer?.wake();
    });
  }

  async onApplicationBootstrap(): Promise<void> {
    for (const { relay, sagas, unit } of this.#hosted.values()) {
      metrics.watchPool(unit.context, () => unit.db.metrics());
      relay.start();
      sagas.start();
    }
    this.#takeFromStreams();
    this.#stopTidying = keepTidy([...this.#hosted.values()].map(({ unit }) => unit.db));
    await this.jobs.start();
  }

  async beforeApplicationShutdown(): Promise<void> {
    this.#stopTidying?.();
    await Promise.all([...this.#hosted.values()].map(async ({ consumer }) => consumer?.stop()));
    await this.receiver.close();
    await this.jobs.stop();
    await Promise.all([...this.#hosted.values()].map(({ sagas }) => sagas.stop()));
    await Promise.all([...this.#hosted.values()].map(({ relay }) => relay.stop()));
  }

  #host(contract: AnyContract, server: object, reactions: Reaction[] = []): void {
    const { name } = contract;
    if (this.#hosted.has(name)) throw new Error(`Two classes serve ${name}`);
    const db = this.databases.get(name);
    if (!db) throw new Error(`${name} has no database (token ${databaseToken(name)})`);
    checkSubscriptions(contract, reactions);

    const active = () => isLocal(this.placement)(name);
    const published = () => hosted.relay.wake();
    const unit = new UnitOfWork(name, db, this.options.side, this.#subscribersOf, published, this.placement);
    const options = { ...relayDefaults, ...this.options.relay };
    const relay = new Relay(unit, this.#deliver, options, active, this.options.streams);
    const hosted: Hosted = { unit, relay, sagas: new SagaRunner(unit, undefined, active) };
    this.#hosted.set(name, hosted);
    this.bus.serve(new Endpoint(contract, server, unit, this.placement.caughtUp?.bind(this.placement)));
    this.sagas.add(hosted.sagas);
    this.receiver.takesBack(name, (back) => relay.takeBack(back));
    if (reactions.length) this.receiver.serve(name, (hosted.inbox = new Inbox(unit, reactions)));
  }

  #takeFromStreams(): void {
    const { streams, relay } = this.options;
    if (!streams) return;
    const { attempts, backoffMs } = { ...relayDefaults, ...relay };
    for (const [name, hosted] of this.#hosted) {
      const { inbox, unit } = hosted;
      if (!inbox) continue;
      const taker = {
        active: () => isLocal(this.placement)(name),
        turn: (lost: () => void) => takeTurn(unit.db, lost),
        receive: async (events: EventEnvelope[]) => {
          try {
            return await inbox.receive(events);
          } catch (error) {
            if (hasMoved(error)) this.placement.moved?.(name, unit.side);
            throw error;
          }
        },
        giveBack: this.#giveBack,
      };
      hosted.consumer = streams.subscribe(name, taker, { attempts, backoffMs });
    }
  }

  /** The `direct` transport: hands events to the subscriber's inbox, wherever it is, and waits for the receipts. */
  readonly #deliver: Deliver = (subscriber, events) =>
    this.#whereItIs(subscriber, (where) => {
      if (where.at === 'remote') return where.via.deliver(subscriber, events);
      const inbox = this.receiver.inbox(subscriber);
      if (where.at === 'hold' || !inbox) throw moved(subscriber);
      return inbox.receive(events);
    });

  readonly #giveBack = (producer: string, back: GivenBack[]): Promise<void> =>
    this.#whereItIs(producer, (where) => {
      if (where.at === 'remote') return where.via.giveBack(producer, back);
      const hosted = this.#hosted.get(producer);
      if (where.at === 'hold' || !hosted) throw moved(producer);
      return hosted.relay.takeBack(back);
    });

  /** Follows a context that moves, for as long as calls are held for it. */
  async #whereItIs<T>(context: string, act: (where: Decision) => Promise<T>): Promise<T> {
    const heldUntil = Date.now() + (this.options.holdMs ?? HOLD);
    for (;;) {
      const where = this.placement.decide(context, 'event');
      try {
        return await act(where);
      } catch (error) {
        if (!DomainError.is(error) || !neverRan(error.code) || Date.now() >= heldUntil) throw error;
        if (where.at !== 'hold' && where.side && error.code === CONTEXT_MOVED)
          this.placement.moved?.(context, where.side);
        await this.placement.changed(context, heldUntil - Date.now());
      }
    }
  }

  #discover() {
    const servers: { contract: AnyContract; instance: object }[] = [];
    const reactions = new Map<string, Reaction[]>();
    const sagas: SagaDefinition<Record<string, unknown>>[] = [];
    const jobs: { options: JobOptions; run: (ctx: JobContext) => Promise<void> }[] = [];
    for (const { instance, metatype } of this.discovery.getProviders()) {
      if (!metatype || !instance || typeof instance !== 'object') continue;
      const serves = this.reflector.get<AnyContract | undefined>(SERVES, metatype);
      if (serves) servers.push({ contract: serves, instance });
      if (this.reflector.get(SAGA, metatype))
        sagas.push((instance as { saga: SagaDefinition<Record<string, unknown>> }).saga);
      const subscriber = this.reflector.get<AnyContract | undefined>(SUBSCRIBES, metatype);
      const methods = instance as Record<string, (...args: unknown[]) => Promise<void>>;
      for (const method of this.scanner.getAllMethodNames(Object.getPrototypeOf(instance) as object)) {
        const run = methods[method]!.bind(instance);
        const event = this.reflector.get<AnyEvent | undefined>(ON, methods[method]!);
        if (event && !subscriber)
          throw new Error(`${metatype.name} has @On(${event.name}) but is not marked @Subscribes`);
        if (event) reactions.set(subscriber!.name, [...(reactions.get(subscriber!.name) ?? []), { event, run }]);
        const job = this.reflector.get<JobOptions | undefined>(JOB, methods[method]!);
        if (job) jobs.push({ options: job, run });
      }
    }
    return { servers, reactions, sagas, jobs };
  }
}

/** Does this process have the context? */
const isLocal =
  (placement: Placement) =>
  (context: string): boolean =>
    placement.decide(context, 'job').at === 'local';

function checkSubscriptions(contract: AnyContract, reactions: readonly Reaction[]): void {
  const declared = [...contract.subscribes].sort();
  const written = reactions.map(({ event }) => event.name).sort();
  if (declared.join() !== written.join())
    throw new Error(
      `${contract.name} declares subscriptions [${declared.join(', ')}] but reacts to [${written.join(', ')}]`,
    );
}

function subscribersIn(contracts: readonly AnyContract[]): (event: string) => readonly string[] {
  const map = new Map<string, string[]>();
  for (const { name, subscribes } of contracts)
    for (const event of subscribes) map.set(event, [...(map.get(event) ?? []), name]);
  return (event) => map.get(event) ?? [];
}
