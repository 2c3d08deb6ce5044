import { Injectable, Module } from '@nestjs/common';
import { type Actor, command, defineContext, event, newId, query } from '@banyan/kernel';
import { AuthModule, rpcToken } from '@banyan/platform/auth';
import { loadConfig } from '@banyan/platform/config';
import { Database, DatabaseModule, InjectDatabase } from '@banyan/platform/database';
import { createHttpApp } from '@banyan/platform/http';
import { type TestDatabase, eventually, startNats } from '@banyan/testing';
import { z } from 'zod';
import { Bus } from './bus.js';
import { HoldsSaga, Job, On, Serves, Subscribes } from './decorators.js';
import type { Envelope } from './envelope.js';
import type { CommandContext, EventOf, Handlers, JobContext, QueryContext } from './handlers.js';
import { MessagingModule, type MessagingOptions } from './messaging.module.js';
import { LoopbackPlacement } from './loopback.js';
import { Nats } from './nats.js';
import { NatsPeers, listenNats } from './nats-rpc.js';
import { type Decision, type Kind, type Placement, type RemoteTransport, allLocal } from './placement.js';
import { type SagaStep, defineSaga } from './saga.js';
import { Sagas } from './sagas.js';
import { RpcController, TcpPeers, listenRpc } from './tcp.js';

/* Two toy contexts in the schemas of two real ones: `inventory` counts, `orders` listens and runs a saga. */

export const counting = defineContext('inventory', {
  routes: [],
  queries: {
    long: query({ input: z.strictObject({ length: z.int() }), output: z.strictObject({ text: z.string() }) }),
    sleep: query({ input: z.strictObject({ ms: z.int() }), output: z.strictObject({}) }),
    valueOf: query({
      input: z.strictObject({ name: z.string().min(1) }),
      output: z.strictObject({ name: z.string(), value: z.int() }),
      errors: { COUNTER_UNKNOWN: 'not_found' },
    }),
  },
  commands: {
    add: command({
      input: z.strictObject({ name: z.string().min(1), by: z.int(), then: z.enum(['fail', 'lie', 'call']).optional() }),
      output: z.strictObject({ name: z.string(), value: z.int(), id: z.string() }),
      key: (i) => i.name,
      errors: { COUNTER_NEGATIVE: 'conflict' },
    }),
  },
  events: { Added: event(1, 'counter', z.strictObject({ name: z.string(), by: z.int(), value: z.int() })) },
  subscribes: [],
});

export const listening = defineContext('orders', {
  routes: [],
  queries: {},
  commands: {
    begin: command({
      input: z.strictObject({ id: z.uuid() }),
      output: z.strictObject({ id: z.uuid() }),
      key: (i) => i.id,
    }),
    tell: command({
      input: z.strictObject({ id: z.uuid(), step: z.string(), ok: z.boolean() }),
      output: z.strictObject({}),
      key: (i) => i.id,
    }),
    tellTwice: command({
      input: z.strictObject({ id: z.uuid() }),
      output: z.strictObject({}),
      key: (i) => i.id,
    }),
    stop: command({ input: z.strictObject({ id: z.uuid() }), output: z.strictObject({}), key: (i) => i.id }),
  },
  events: {},
  subscribes: ['inventory.Added'],
});

const toys = [counting, listening];

export const toyConfig = loadConfig({ BANYAN_SECRET: 'a secret that all processes of a spec share' });

export interface ToyHooks {
  /** Lets other processes in, on this port; the system chooses one for 0. */
  rpcPort?: number;
  /** Told which one it is. */
  listens?: (port: number) => void;
  /** Lets them in through NATS as well. */
  nats?: Nats;
  /** Called with each event that `orders` reacts to, before its row is written. */
  heard?: (event: EventOf<typeof counting.events.Added>) => void;
  steps?: SagaStep<Record<string, unknown>>[];
  compensated?: (reason: string) => void;
  jobRan?: (ctx: JobContext) => void;
}

export async function createToyTables(test: TestDatabase): Promise<void> {
  await test.admin(`create table if not exists inventory.toy (name text primary key, value bigint not null)`);
  await test.admin(`grant all on inventory.toy to banyan_inventory`);
  await test.admin(
    `create table if not exists orders.toy_heard (event_id uuid, name text, value bigint, version bigint, seq bigserial)`,
  );
  await test.admin(`grant all on orders.toy_heard to banyan_orders`);
  await test.admin(`grant usage on all sequences in schema orders to banyan_orders`);
}

export async function startToy(test: TestDatabase, hooks: ToyHooks = {}, options: Partial<MessagingOptions> = {}) {
  @Serves(counting)
  class Counting implements Handlers<typeof counting> {
    constructor(
      @InjectDatabase(counting) private readonly db: Database,
      private readonly bus: Bus,
    ) {}

    async sleep({ ms }: { ms: number }) {
      await new Promise((resolve) => setTimeout(resolve, ms));
      return {};
    }

    async long({ length }: { length: number }) {
      return { text: 'x'.repeat(length) };
    }

    async valueOf({ name }: { name: string }, _ctx: QueryContext) {
      const { rows } = await this.db.query<{ value: number }>('select value from toy where name = $1', [name]);
      if (!rows[0]) throw counting.fail('COUNTER_UNKNOWN', `No counter ${name}`);
      return { name, value: rows[0].value };
    }

    async add({ name, by, then }: { name: string; by: number; then?: string }, ctx: CommandContext) {
      const { rows } = await this.db.query<{ value: number }>(
        'insert into toy as t (name, value) values ($1, $2) on conflict (name) do update set value = t.value + $2 returning value',
        [name, by],
      );
      const value = rows[0]!.value;
      ctx.emit(counting.events.Added, name, { name, by, value });
      if (value < 0) throw counting.fail('COUNTER_NEGATIVE', 'below zero', { value });
      if (then === 'fail') throw new Error('secret detail');
      if (then === 'call') await this.bus.client(counting).valueOf({ name });
      return { name, value: then === 'lie' ? ('many' as unknown as number) : value, id: ctx.newId() };
    }
  }

  @Serves(listening)
  class Listening implements Handlers<typeof listening> {
    constructor(private readonly sagas: Sagas) {}

    async begin({ id }: { id: string }, ctx: CommandContext) {
      await this.sagas.start('orders.toy', id, { id }, ctx);
      return { id };
    }

    async tell({ id, step, ok }: { id: string; step: string; ok: boolean }, ctx: CommandContext) {
      await this.sagas.signal('orders.toy', id, step, ok ? { done: { told: true } } : { refused: 'TOLD_NO' }, ctx);
      return {};
    }

    async tellTwice({ id }: { id: string }, ctx: CommandContext) {
      await this.sagas.signal('orders.toy', id, 'three', { done: {} }, ctx);
      await this.sagas.signal('orders.toy', id, 'two', { done: {} }, ctx);
      return {};
    }

    async stop({ id }: { id: string }, ctx: CommandContext) {
      await this.sagas.cancel('orders.toy', id, ctx);
      return {};
    }
  }

  @Subscribes(listening)
  class ListeningEvents {
    constructor(@InjectDatabase(listening) private readonly db: Database) {}

    @On(counting.events.Added)
    async onAdded(added: EventOf<typeof counting.events.Added>) {
      hooks.heard?.(added);
      await this.db.query('insert into toy_heard (event_id, name, value, version) values ($1, $2, $3, $4)', [
        added.id,
        added.data.name,
        added.data.value,
        added.version,
      ]);
    }
  }

  @HoldsSaga()
  class ToySaga {
    readonly saga = defineSaga<Record<string, unknown>>({
      name: 'orders.toy',
      steps: hooks.steps ?? [{ name: 'only', withinMs: 1_000, run: async () => ({ done: {} }) }],
      onCompensated: async (_data, reason) => hooks.compensated?.(reason),
    });
  }

  @Injectable()
  class ToyJobs {
    @Job({ name: 'inventory.toy', everyMs: 60_000 })
    async toy(ctx: JobContext) {
      hooks.jobRan?.(ctx);
    }
  }

  @Module({
    imports: [
      DatabaseModule.forRoot({
        urls: { inventory: test.urls.inventory!, orders: test.urls.orders! },
        max: 12,
        connectTimeoutMs: 20_000,
      }),
      MessagingModule.forRoot({
        contracts: toys,
        side: 'monolith',
        jobs: { connectionString: test.adminUrl, schema: 'banyan_jobs' },
        relay: { backoffMs: 5, attempts: 3, sweepMs: 50 },
        ...options,
      }),
      AuthModule.with({ keySource: () => async () => ({ keys: [] }) }),
    ],
    controllers: [RpcController],
    providers: [Counting, Listening, ListeningEvents, ToySaga, ToyJobs],
  })
  class ToyApp {}

  const app = await createHttpApp(ToyApp, toyConfig, { logger: false });
  await app.init();
  const port =
    hooks.rpcPort === undefined ? undefined : await listenRpc(app, { host: '127.0.0.1', port: hooks.rpcPort });
  if (port !== undefined) hooks.listens?.(port);
  if (hooks.nats)
    await listenNats(app, { nats: hooks.nats, side: 'monolith', serves: toys, contracts: toys }).catch(
      async (error) => {
        await app.close();
        throw error;
      },
    );
  const bus = app.get(Bus);
  return {
    app,
    bus,
    port,
    counting: bus.client(counting),
    listening: bus.client(listening),
    close: () => app.close(),
  };
}

/** Calls and events of every context go out over TCP and come back in. */
export class OverTcp implements Placement {
  readonly peers = new TcpPeers(rpcToken(toyConfig));
  /** Until it is known, messages are held. */
  port: number | undefined;

  decide(context: string, kind: Kind): Decision {
    if (kind === 'job') return { at: 'local' };
    if (this.port === undefined) return { at: 'hold' };
    return {
      at: 'remote',
      via: this.peers.to({ context, side: 'monolith', addresses: [{ host: '127.0.0.1', port: this.port }] }),
    };
  }

  readonly changed = allLocal.changed;
}

/** The same through NATS. */
export class OverNats implements Placement {
  readonly peers: NatsPeers;

  constructor(nats: Nats) {
    this.peers = new NatsPeers(nats, rpcToken(toyConfig));
  }

  decide(context: string, kind: Kind): Decision {
    if (kind === 'job') return { at: 'local' };
    return { at: 'remote', via: this.peers.to({ context, side: 'monolith', addresses: [] }) };
  }

  readonly changed = allLocal.changed;
}

/** A way for messages from one context to another. */
export interface Way {
  hooks: ToyHooks;
  placement?: Placement;
  close(): Promise<void>;
}

/** All there are: what holds for a message has to hold on each of them. */
export const ways: [name: string, open: () => Promise<Way>][] = [
  ['in process', async () => ({ hooks: {}, close: async () => {} })],
  [
    'through the serialising loop-back',
    async () => ({ hooks: {}, placement: new LoopbackPlacement(), close: async () => {} }),
  ],
  [
    'over TCP',
    async () => {
      const placement = new OverTcp();
      const hooks = { rpcPort: 0, listens: (port: number) => void (placement.port = port) };
      return { hooks, placement, close: async () => placement.peers.close() };
    },
  ],
  [
    'over NATS',
    async () => {
      const server = await startNats();
      const nats = await natsTo(server.url);
      const close = async () => {
        await nats.close();
        await server.stop();
      };
      return { hooks: { nats }, placement: new OverNats(nats), close };
    },
  ],
];

/** The way to `inventory`, once there is a connection: the first may take longer than a call waits for one. */
export async function opened(peer: RemoteTransport): Promise<RemoteTransport> {
  await eventually(
    async () => {
      const reply = await peer.call(callOf('sleep', { ms: 0 }));
      return reply.ok || reply.error.kind !== 'unavailable';
    },
    { timeoutMs: 20_000 },
  );
  return peer;
}

/**
 * Holds the next call of `inventory` where it is handled: `there` resolves when it has come, and it goes on after
 * `letGo`. `arrived` tells how many came since.
 */
export function holdNext(bus: Bus) {
  const endpoint = bus.endpoint('inventory')!;
  const { handle } = endpoint;
  let come!: () => void;
  let letGo!: () => void;
  const there = new Promise<void>((resolve) => (come = resolve));
  const gone = new Promise<void>((resolve) => (letGo = resolve));
  const held = { there, letGo, arrived: 0 };
  endpoint.handle = async (envelope) => {
    if (++held.arrived > 1) return handle.call(endpoint, envelope);
    come();
    await gone;
    return handle.call(endpoint, envelope);
  };
  return held;
}

/** A call to `inventory` as a wire carries it. */
export const callOf = (operation: string, input: unknown, changes: Partial<Envelope> = {}): Envelope => ({
  id: newId(),
  context: 'inventory',
  operation,
  input,
  actor: alice,
  at: Date.now(),
  deadline: Date.now() + 20_000,
  ...changes,
});

export const natsTo = (url: string, name = 'monolith'): Promise<Nats> =>
  Nats.connect({ servers: [url], tls: {} }, { name, patienceMs: 20_000 });

export const alice: Actor = { kind: 'user', id: '019012d0-0000-7000-8000-00000000000a', roles: ['customer'] };
export const bob: Actor = { kind: 'user', id: '019012d0-0000-7000-8000-00000000000b', roles: ['customer'] };
