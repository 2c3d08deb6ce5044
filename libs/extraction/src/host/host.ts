import { join } from 'node:path';
import type { DynamicModule, OnApplicationShutdown, Type } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { AnyContract, Side } from '@banyan/kernel';
import { MessagingModule, type Placement, clientToken, edge } from '@banyan/messaging';
import { EventStreams } from '@banyan/messaging/jetstream';
import { Nats, natsUser } from '@banyan/messaging/nats';
import { listenNats } from '@banyan/messaging/nats-rpc';
import { RpcController, listenRpc } from '@banyan/messaging/tcp';
import { AuthModule, type KeySource, keptKeys } from '@banyan/platform/auth';
import { Cache } from '@banyan/platform/cache';
import type { Config } from '@banyan/platform/config';
import { DatabaseModule, ensureContextDatabases, ensureOwnedSchema } from '@banyan/platform/database';
import { type HttpAppOptions, createHttpApp } from '@banyan/platform/http';
import { readiness } from '@banyan/platform/telemetry';
import { NestLogger, loggerModule } from '@banyan/platform/telemetry/nest';
import { Router } from './router.js';

const migrationsDir = join(import.meta.dirname, '../../../../migrations');

export interface HostOptions extends Pick<HttpAppOptions, 'logger' | 'bufferLogs' | 'observe' | 'title'> {
  /** Whose process it is: the monolith with every context, or the service with one. */
  side: Side;
  /** Every contract of the system: what may be called, wherever it is. */
  contracts: readonly AnyContract[];
  /** The contexts whose code runs here. */
  serves: readonly AnyContract[];
  /** Their modules. */
  module: Type | DynamicModule;
  /** The contract that has the public keys of access tokens: its query `jwks`. */
  keys: AnyContract;
  /** Where contexts run, instead of what the control plane says. */
  placement?: Placement;
  /** Listen for messages of other processes; by default a service does, and a monolith that follows a control plane. */
  rpc?: boolean;
}

/**
 * One process of the system on the databases of `config`: migrated and initialised, answering other processes on RPC_PORT,
 * not listening for HTTP yet. Monolith and services differ in what is imported, and in nothing else.
 */
export async function createHost(config: Config, options: HostOptions): Promise<NestFastifyApplication> {
  const { side, contracts, serves, keys, title, ...http } = options;
  const { controlUrls, holdMs } = config.extraction;
  const adminUrl = config.database.url;
  if (!adminUrl)
    throw new Error('DATABASE_URL is missing; `banyan up` brings an embedded Postgres and sets it for every process');
  const own = side === 'service' ? serves[0]!.name : undefined;
  const nats =
    config.nats && (await Nats.connect(config.nats, { name: own ? natsUser.service(own) : natsUser.monolith }));
  const told =
    nats && readiness.degraded('nats', () => nats.fault);
  const streams = nats && new EventStreams(nats, { publishing: config.transports.events === 'jetstream' });
  const router = !options.placement && controlUrls ? new Router(config, controlUrls, side, own, nats) : undefined;
  const [urls, jobsUrl] = await Promise.all([
    ensureContextDatabases({
      adminUrl,
      contexts: serves.map(({ name }) => name),
      side,
      migrationsDir,
      overrides: side === 'monolith' ? config.database.contextUrls : {},
    }),
    ensureOwnedSchema(adminUrl, 'jobs'),
    router?.start(),
    streams?.publishing && streams.declare(serves.flatMap(({ name, subscribes }) => (subscribes.length ? [name] : []))),
  ]);
  const listens = options.rpc ?? (side === 'service' || router !== undefined);

  class Host implements OnApplicationShutdown {
    /** Behind everything that sends and answers. */
    async onApplicationShutdown(): Promise<void> {
      told?.();
      await nats?.close();
    }
  }
  const root: DynamicModule = {
    module: Host,
    imports: [
      loggerModule(),
      DatabaseModule.forRoot({
        urls,
        max: config.database.poolSize,
        connectTimeoutMs: config.database.connectTimeoutMs,
        statementTimeoutMs: config.database.statementTimeoutMs,
      }),
      MessagingModule.forRoot({
        contracts,
        side,
        placement: options.placement ?? router?.placement,
        jobs: { connectionString: jobsUrl, schema: 'jobs', queue: own ? `${own}-service` : 'monolith' },
        streams,
        holdMs,
      }),
      AuthModule.with({
        inject: [clientToken(keys), Cache],
        keySource: (client: { jwks(input: object): ReturnType<KeySource> }, cache: Cache) =>
          keptKeys(cache, () => client.jwks({})),
      }),
      options.module,
    ],
    controllers: listens ? [RpcController] : [],
    providers: router ? [{ provide: Router, useValue: router }] : [],
  };
  const app = await createHttpApp(root, config, {
    title,
    servedBy: side,
    logger: http.logger,
    bufferLogs: http.bufferLogs,
    observe: http.observe,
    ...edge(config.http.requestTimeoutMs),
  });
  // Before init: what buffers log lines gives them to Nest's console logger there.
  if (http.bufferLogs) app.useLogger(app.get(NestLogger));
  await app.init();
  if (listens) {
    await listenRpc(app, config.rpc);
    // Both ways in, whichever one this process takes to others: so a fleet changes over one process at a time.
    if (nats) await listenNats(app, { nats, side, serves, contracts });
  }
  return app;
}
