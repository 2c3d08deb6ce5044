import 'reflect-metadata';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { calledByAll, contracts } from '@banyan/contracts';
import { newId } from '@banyan/kernel';
import { Jobs, LoopbackPlacement } from '@banyan/messaging';
import { natsConfig, natsUsers } from '@banyan/messaging/nats-config';
import { createMonolith } from '@banyan/monolith';
import { SIGNATURE_HEADER, signWebhook } from '@banyan/platform/auth';
import { type Config, loadConfig } from '@banyan/platform/config';
import { shutDown } from '@banyan/platform/http';
import { observeHttp } from '@banyan/platform/telemetry';
import {
  type PspProcess,
  type TestDatabase,
  contextNames,
  createTestDatabase,
  freePort,
  startNats,
  startPsp,
  startRedis,
} from '@banyan/testing';
import { Pool } from 'undici';
import { afterAll, beforeAll, inject } from 'vitest';
import { type PlacementName, isOnEngines, leftIn } from './placements.js';
import { openReader } from './reader.js';
import { Services } from './services.js';
import { TokenMint } from './token-mint.js';
import { Visitor } from './visitor.js';

export { everyPlacement, placements } from './placements.js';

export interface ShopOptions {
  placement?: PlacementName;
  /** Settings by the names they have in the environment. */
  settings?: Readonly<Record<string, string>>;
  /** No payment provider: for specs that never get as far as a payment. */
  psp?: false;
  /** Something between the app and Postgres: makes the URL that the app gets from the database's own. */
  databaseUrl?: (url: string) => string | Promise<string>;
}

const secrets = { PSP_WEBHOOK_SECRET: newId(), CARRIER_WEBHOOK_SECRET: newId(), BANYAN_SECRET: `${newId()}${newId()}` };

/**
 * The real monolith in this process, listening, on a Postgres database of its own, with the payment provider's
 * simulator as a process beside it. Unless a spec says otherwise there are no rate limits, and no simulated carrier:
 * the spec tells by webhook when the goods leave and arrive (`carrierSays`).
 */
export class Shop {
  /** What is put into the shelves by `offer`, by SKU. */
  readonly putIn = new Map<string, number>();

  private constructor(
    readonly app: NestFastifyApplication,
    readonly config: Config,
    readonly url: string,
    /** The databases of all contexts seen as one. */
    private readonly database: TestDatabase,
    private readonly services: Services,
    readonly psp: PspProcess,
    readonly mint: TokenMint,
    private readonly connections: Pool,
    private readonly close: () => Promise<void>,
  ) {}

  static async open(options: ShopOptions = {}): Promise<Shop> {
    const { placement = 'in-process' } = options;
    const left = leftIn(placement);
    const endings: (() => Promise<unknown>)[] = [];
    const close = async () => {
      for (const end of endings.reverse()) await end();
    };
    try {
      const database = await createTestDatabase(inject('adminUrl'));
      endings.push(() => database.drop());
      const stateDir = await mkdtemp(join(tmpdir(), 'banyan-shop-'));
      endings.push(() => rm(stateDir, { recursive: true }));
      const port = await freePort();
      const url = `http://127.0.0.1:${port}`;
      const psp = options.psp === false ? undefined : await startPsp({ ...pspSettings(url), ...options.settings });
      if (psp) endings.push(() => psp.stop());
      const engines: Record<string, string> = {};
      if (isOnEngines(placement)) {
        const secret = `${newId()}${newId()}`;
        const users = natsUsers(contracts, calledByAll);
        const [nats, redis] = await Promise.all([startNats({ config: natsConfig({ users, secret }) }), startRedis()]);
        endings.push(() => Promise.all([nats.stop(), redis.stop()]));
        Object.assign(engines, { NATS_URL: nats.url, NATS_SECRET: secret, REDIS_URL: redis.url });
      }
      const settings = {
        ...secrets,
        ...engines,
        BANYAN_STATE_DIR: stateDir,
        BANYAN_RATE_LIMITS: 'off',
        PSP_URL: psp?.url ?? 'http://127.0.0.1:9',
        PSP_TIMEOUT_MS: '1000',
        BANYAN_CARRIER_DISPATCH_MS: '0',
        BANYAN_CARRIER_DELIVERY_MS: '0',
        LOG_LEVEL: 'error',
        // One machine does here what many do elsewhere: waiting for a connection says nothing then.
        BANYAN_DB_CONNECT_TIMEOUT_MS: '20000',
        ...options.settings,
      };
      const seenAs = new URL((await options.databaseUrl?.(database.adminUrl)) ?? database.adminUrl);
      const seen = (url: string) => Object.assign(new URL(url), { host: seenAs.host }).href;
      const services = await Services.prepare(left, { settings, database, seen });
      endings.push(() => services.close());
      const config = loadConfig({ ...settings, ...services.monolithSettings, DATABASE_URL: seen(database.adminUrl) });
      const mint = await TokenMint.open(services.databaseOf('identity'), config);
      const owners = new Map(contextNames.map((context) => [context, services.databaseOf(context)]));
      const reader = left.length > 0 ? await openReader(owners) : database;
      if (reader !== database) endings.push(() => reader.drop());
      const app = await createMonolith(config, {
        logger: false,
        observe: (server) => observeHttp(server, { accessLog: false }),
        placement:
          left.length > 0
            ? await services.placement(config)
            : placement === 'loopback'
              ? new LoopbackPlacement()
              : undefined,
        rpc: left.length > 0,
      });
      endings.push(() => shutDown(app, 2_000));
      await services.open();
      await app.listen(port, '127.0.0.1');
      const connections = new Pool(url, { connections: 64, headersTimeout: 60_000, bodyTimeout: 60_000 });
      endings.push(() => connections.destroy());
      return new Shop(app, config, url, reader, services, psp as PspProcess, mint, connections, close);
    } catch (error) {
      // What it left open is told too, but the reason is this.
      await close().catch(() => {});
      throw error;
    }
  }

  stop(): Promise<void> {
    return this.close();
  }

  /** Somebody without an account. */
  stranger(): Visitor {
    return new Visitor(this.connections);
  }

  /** Somebody who has registered and signed in, as everybody has to. */
  async customer(name = 'Ada'): Promise<Visitor> {
    const visitor = this.stranger();
    await visitor.register(name);
    return visitor;
  }

  /** Somebody with a good token and no account: what counts where hundreds of people are needed at once. */
  async guest(role: 'customer' | 'staff' | 'admin' = 'customer'): Promise<Visitor> {
    const id = newId();
    return new Visitor(this.connections, { id, token: await this.mint.token(id, [role]) });
  }

  staff(): Promise<Visitor> {
    return this.guest('staff');
  }

  /** A product with stock, put on offer by staff; resolves when carts know it. Its SKU. */
  async offer({ onHand = 10, amount = 1299, currency = 'EUR', name = 'A mug', sku = `SKU-${newId()}` } = {}) {
    const staff = await this.staff();
    const product = { sku, name, category: 'things', price: { amount, currency } };
    (await staff.post('/v1/products', product)).expect(201);
    await this.stock(sku, onHand);
    for (let known = false; !known;)
      known = (await this.sql('select 1 from orders.product where sku = $1', [sku])).length > 0;
    return sku;
  }

  /** Sets how much of a SKU is on hand. */
  async stock(sku: string, onHand: number): Promise<void> {
    (await (await this.staff()).put(`/v1/stock/${sku}`, { onHand })).expect(200);
    const [row] = await this.sql<{ received: string }>('select received from inventory.stock_item where sku = $1', [
      sku,
    ]);
    this.putIn.set(sku, Number(row!.received));
  }

  /** What anybody can see of a SKU's stock. */
  async shelf(sku: string): Promise<{ onHand: number; reserved: number; available: number }> {
    const { onHand, reserved, available } = (await this.stranger().get(`/v1/stock/${sku}`)).expect(200).body;
    return { onHand, reserved, available };
  }

  /** Looks at rows, as superuser. */
  sql<R extends Record<string, unknown> = Record<string, unknown>>(text: string, values?: unknown[]): Promise<R[]> {
    return this.database.admin<R>(text, values);
  }

  /** Runs a job now instead of at its next round. */
  wake(job: string): Promise<void> {
    const app = this.services.app(job.split('.')[0]!) ?? this.app;
    return app.get(Jobs, { strict: false }).wake(job);
  }

  /** The carrier's signed webhook about a shipment. */
  carrierSays(trackingNumber: string, status: 'dispatched' | 'delivered', changes: object = {}) {
    const event = { eventId: newId(), trackingNumber, status, at: new Date().toISOString(), ...changes };
    return this.webhook('/v1/webhooks/carrier', event, secrets.CARRIER_WEBHOOK_SECRET);
  }

  /** The payment provider's signed webhook. */
  providerSays(event: object) {
    return this.webhook('/v1/webhooks/psp', event, secrets.PSP_WEBHOOK_SECRET);
  }

  webhook(path: string, event: object, secret: string, at?: Date) {
    const body = JSON.stringify(event);
    return this.stranger().send('POST', path, body, {
      'content-type': 'application/json',
      [SIGNATURE_HEADER]: signWebhook(secret, body, at),
    });
  }

  /** The order leaves the warehouse; resolves when the customer can see it. */
  async ship(buyer: Visitor, orderId: string): Promise<void> {
    const { shipment } = await buyer.until(orderId, (order) => order.shipment?.trackingNumber);
    (await this.carrierSays(shipment.trackingNumber, 'dispatched')).expect(204);
    await buyer.until(orderId, 'shipped');
  }
}

/** A shop for the describe block (or file) that calls this at its top: opened before its tests, closed after them. */
export function openShop(options: ShopOptions = {}): Shop {
  let shop: Shop | undefined;
  beforeAll(async () => {
    shop = await Shop.open(options);
  });
  afterAll(() => shop?.stop());
  return new Proxy({} as Shop, {
    get(_, property) {
      if (!shop) throw new Error('The shop is open inside of hooks and tests only');
      const value = Reflect.get(shop, property, shop) as unknown;
      return typeof value === 'function' ? value.bind(shop) : value;
    },
  });
}

const pspSettings = (url: string) => ({
  PSP_WEBHOOK_URL: `${url}/v1/webhooks/psp`,
  PSP_WEBHOOK_SECRET: secrets.PSP_WEBHOOK_SECRET,
  PSP_HANG_MS: '5000',
});
