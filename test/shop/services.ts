import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { service as catalog } from '@banyan/catalog-service';
import { ExtractionPlacement, type Routing, type RoutingSource } from '@banyan/extraction';
import { type HostOptions, createHost } from '@banyan/extraction/host';
import { service as identity } from '@banyan/identity-service';
import { service as inventory } from '@banyan/inventory-service';
import type { Peers, Placement } from '@banyan/messaging';
import { Nats, natsUser } from '@banyan/messaging/nats';
import { natsPassword } from '@banyan/messaging/nats-config';
import { NatsPeers } from '@banyan/messaging/nats-rpc';
import { TcpPeers } from '@banyan/messaging/tcp';
import { service as notifications } from '@banyan/notifications-service';
import { service as orders } from '@banyan/orders-service';
import { service as payments } from '@banyan/payments-service';
import { rpcToken } from '@banyan/platform/auth';
import { type Config, loadConfig } from '@banyan/platform/config';
import { shutDown } from '@banyan/platform/http';
import { service as shipping } from '@banyan/shipping-service';
import { type TestDatabase, createTestDatabase, freePort } from '@banyan/testing';
import { inject } from 'vitest';

const hosts: Record<string, HostOptions> = {
  catalog,
  identity,
  inventory,
  notifications,
  orders,
  payments,
  shipping,
};

/** A hand-over has made the service the owner, at this epoch. */
const EPOCH = 2;

export interface Surroundings {
  /** The settings that every process has. */
  settings: Readonly<Record<string, string>>;
  /** The database of the monolith. */
  database: TestDatabase;
  /** What lies between a process and its database: the URL that it gets for the database's own. */
  seen: (url: string) => string;
}

/**
 * The contexts that have left: each a real service in this process, reached over TCP or NATS, with a database of its own that it
 * owns. Nothing copies between the databases, so whoever looks into the wrong one finds nothing.
 */
export class Services {
  readonly #apps = new Map<string, NestFastifyApplication>();
  readonly #endings: (() => Promise<unknown> | void)[] = [];
  readonly databases = new Map<string, TestDatabase>();

  private constructor(
    private readonly routing: Routing,
    private readonly surroundings: Surroundings,
  ) {}

  /** Prepares the databases. `open` starts the services, once the monolith's own database is as they need it. */
  static async prepare(contexts: readonly string[], surroundings: Surroundings): Promise<Services> {
    const address = async () => ({ host: '127.0.0.1', port: await freePort() });
    const endpoints = async () => ({ http: ['http://127.0.0.1:9'], rpc: [await address()] });
    const services = new Services({ revision: 1, monolith: await endpoints(), contexts: {} }, surroundings);
    const leave = async (context: string) => {
      const database = await createTestDatabase(inject('adminUrl'));
      services.#endings.push(() => database.drop());
      services.databases.set(context, database);
      await database.admin(`update ${context}.banyan_owner set side = 'service', epoch = ${EPOCH}`);
      await surroundings.database.admin(`update ${context}.banyan_owner set open = false, epoch = ${EPOCH}`);
      services.routing.contexts[context] = {
        stage: 'live',
        owner: 'service',
        epoch: EPOCH,
        holding: false,
        since: new Date().toISOString(),
        service: await endpoints(),
      };
    };
    await Promise.all(contexts.map(leave));
    return services;
  }

  /** The settings that let the monolith be reached by the services. */
  get monolithSettings(): Record<string, string> {
    return { RPC_PORT: String(this.routing.monolith.rpc[0]!.port), ...this.#signOn(natsUser.monolith) };
  }

  /** The database that owns a context. */
  databaseOf(context: string): TestDatabase {
    return this.databases.get(context) ?? this.surroundings.database;
  }

  /** The process that a context runs in; undefined when that is the monolith. */
  app(context: string): NestFastifyApplication | undefined {
    return this.#apps.get(context);
  }

  async placement(config: Config, context?: string): Promise<Placement> {
    const peers = await this.#peers(config, context);
    const routing: RoutingSource = { current: () => this.routing, onChange: () => () => {} };
    return new ExtractionPlacement({
      side: context ? 'service' : 'monolith',
      context,
      routing,
      canary: { isService: () => false },
      transports: peers,
      monolith: this.routing.monolith.rpc,
    });
  }

  async #peers(config: Config, context: string | undefined): Promise<Peers> {
    if (config.nats && config.transports.rpc === 'nats') {
      const nats = await Nats.connect(config.nats, { name: context ? natsUser.service(context) : natsUser.monolith });
      this.#endings.push(() => nats.close());
      return new NatsPeers(nats, rpcToken(config));
    }
    const peers = new TcpPeers(rpcToken(config));
    this.#endings.push(() => peers.close());
    return peers;
  }

  /** On NATS each process is a user of its own, with no more rights than it needs. */
  #signOn(user: string): Record<string, string> {
    const { NATS_SECRET: secret } = this.surroundings.settings;
    return secret ? { NATS_SECRET: '', NATS_USER: user, NATS_PASSWORD: natsPassword(secret, user) } : {};
  }

  async open(): Promise<void> {
    const { settings, seen } = this.surroundings;
    const start = async ([context, database]: [string, TestDatabase]) => {
      const config = loadConfig({
        ...settings,
        DATABASE_URL: seen(database.adminUrl),
        RPC_PORT: String(this.routing.contexts[context]!.service!.rpc[0]!.port),
        ...this.#signOn(natsUser.service(context)),
      });
      const placement = await this.placement(config, context);
      const app = await createHost(config, { ...hosts[context]!, logger: false, placement });
      this.#apps.set(context, app);
      this.#endings.push(() => shutDown(app, 2_000));
    };
    await Promise.all([...this.databases].map(start));
  }

  async close(): Promise<void> {
    for (const end of this.#endings.reverse()) await end();
  }
}
