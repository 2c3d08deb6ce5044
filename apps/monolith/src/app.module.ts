import { type DynamicModule, Module } from '@nestjs/common';
import { CatalogModule } from '@banyan/catalog';
import { contracts, identity } from '@banyan/contracts';
import { IdentityModule } from '@banyan/identity';
import { InventoryModule } from '@banyan/inventory';
import { type Client, MessagingModule, type Placement, clientToken } from '@banyan/messaging';
import { NotificationsModule } from '@banyan/notifications';
import { OrdersModule } from '@banyan/orders';
import { PaymentsModule } from '@banyan/payments';
import { AuthModule } from '@banyan/platform/auth';
import type { Config } from '@banyan/platform/config';
import { DatabaseModule } from '@banyan/platform/database';
import { loggerModule } from '@banyan/platform/telemetry';
import { ShippingModule } from '@banyan/shipping';
import { DemoShop } from './demo-shop.js';

export interface MonolithOptions {
  config: Config;
  /** One URL per context. */
  urls: Readonly<Record<string, string>>;
  /** Where the jobs' tables are. */
  jobsUrl: string;
  /** Where contexts run; all in this process by default. */
  placement?: Placement;
}

/** Every context in one process. */
@Module({})
export class AppModule {
  static with({ config, urls, jobsUrl, placement }: MonolithOptions): DynamicModule {
    return {
      module: AppModule,
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
          side: 'monolith',
          placement,
          jobs: { connectionString: jobsUrl, schema: 'jobs' },
        }),
        AuthModule.with({
          inject: [clientToken(identity)],
          keySource: (client: Client<typeof identity>) => () => client.jwks({}),
        }),
        IdentityModule,
        CatalogModule,
        InventoryModule,
        OrdersModule,
        PaymentsModule,
        ShippingModule,
        NotificationsModule,
      ],
      providers: [DemoShop],
    };
  }
}
