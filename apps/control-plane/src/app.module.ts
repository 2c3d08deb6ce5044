import { type DynamicModule, Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { contracts } from '@banyan/contracts';
import type { Endpoints } from '@banyan/extraction';
import type { Nats } from '@banyan/messaging/nats';
import { NatsPeers } from '@banyan/messaging/nats-rpc';
import { TcpPeers } from '@banyan/messaging/tcp';
import { rpcToken } from '@banyan/platform/auth';
import { type Config } from '@banyan/platform/config';
import { type Database, DatabaseModule, databaseToken } from '@banyan/platform/database';
import { readiness } from '@banyan/platform/telemetry';
import { loggerModule } from '@banyan/platform/telemetry/nest';
import { ControlGuard, TOKENS, type Tokens } from './access.js';
import { AuditController } from './audit.http.js';
import { ContextsController } from './contexts.http.js';
import { ControlPlane } from './control-plane.service.js';
import { ControlStore } from './control-store.js';
import { DeadLettersController } from './dead-letters.http.js';
import { FlagStore, FlagsModule } from './flags/index.js';
import { canForward } from './forward.js';
import { OwnerDatabases } from './owner-databases.js';
import { Probe } from './probe.js';
import { Reports } from './reports.js';
import { RoutingController } from './routing.http.js';
import { RoutingTable } from './routing-table.js';
import { Runtime } from './runtime.js';
import { Streams } from './streams.js';

export interface ControlPlaneModuleOptions {
  config: Config;
  /** The schema `control`, as its own role. */
  url: string;
  tokens: Tokens;
  monolith: Endpoints;
  runtime: Runtime;
  streams: (owners: OwnerDatabases) => Streams;
  /** The way to other processes, instead of TCP. */
  nats?: Nats;
}

const CONTROL = databaseToken('control');
const NATS = Symbol('banyan.nats');

/** The rows of the control plane, injectable before anything else is. */
@Module({})
class StoreModule {}

@Module({})
export class ControlPlaneModule implements OnApplicationShutdown {
  constructor(
    private readonly control: ControlPlane,
    @Inject(NATS) private readonly nats: Nats | undefined,
  ) {}

  static with({ config, url, tokens, monolith, runtime, streams, nats }: ControlPlaneModuleOptions): DynamicModule {
    const { poolSize, connectTimeoutMs, statementTimeoutMs } = config.database;
    return {
      module: ControlPlaneModule,
      imports: [
        loggerModule(),
        DatabaseModule.forRoot({ urls: { control: url }, max: poolSize, connectTimeoutMs, statementTimeoutMs }),
        {
          module: StoreModule,
          global: true,
          providers: [{ provide: ControlStore, inject: [CONTROL], useFactory: (db: Database) => new ControlStore(db) }],
          exports: [ControlStore],
        },
        FlagsModule.with({
          config,
          inject: [CONTROL, ControlStore],
          useFactory: (database: Database, store: ControlStore) => ({
            contexts: contracts.map(({ name }) => name),
            database,
            audit: (entry) => store.audit(entry),
          }),
        }),
      ],
      controllers: [ContextsController, RoutingController, AuditController, DeadLettersController],
      providers: [
        { provide: TOKENS, useValue: tokens },
        { provide: NATS, useValue: nats },
        { provide: APP_GUARD, useClass: ControlGuard },
        { provide: Runtime, useValue: runtime },
        { provide: OwnerDatabases, useFactory: () => new OwnerDatabases(config) },
        { provide: Streams, inject: [OwnerDatabases], useFactory: streams },
        { provide: Reports, inject: [ControlStore], useFactory: (store: ControlStore) => new Reports(store) },
        {
          provide: RoutingTable,
          inject: [ControlStore],
          useFactory: (store: ControlStore) => new RoutingTable(store, monolith),
        },
        {
          provide: ControlPlane,
          inject: [ControlStore, OwnerDatabases, Streams, RoutingTable, Reports, FlagStore],
          useFactory: (
            store: ControlStore,
            owners: OwnerDatabases,
            streamsOf: Streams,
            routing: RoutingTable,
            reports: Reports,
            flags: FlagStore,
          ) => {
            const ports = { owners, streams: streamsOf, store, routing, reports, flags, runtime };
            return new ControlPlane({
              ...ports,
              contracts,
              url,
              forwards: canForward(config.extraction.controlUrls ?? []),
              whileLeading: () => startProbe(config, routing, reports, nats),
            });
          },
        },
      ],
    };
  }

  onModuleInit(): void {
    readiness.check('leading', () => this.control.mustServe());
  }

  async onApplicationShutdown(): Promise<void> {
    await this.control.stop();
    await this.nats?.close();
  }
}

/** A quiet system collects evidence, too; one probe is enough, so the one that acts has it. */
function startProbe(config: Config, routing: RoutingTable, reports: Reports, nats?: Nats): () => Promise<void> {
  const transports = nats ? new NatsPeers(nats, rpcToken(config)) : new TcpPeers(rpcToken(config));
  const probe = new Probe({
    contracts,
    instance: `probe-${process.pid}-${Date.now().toString(36)}`,
    routing: () => routing.current(),
    transports,
    report: (report) => reports.take(report),
  });
  probe.start();
  return async () => {
    await probe.stop();
    transports.close();
  };
}
