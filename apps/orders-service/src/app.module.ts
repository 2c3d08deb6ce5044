import { Module } from '@nestjs/common';
import { contracts, identity, orders } from '@banyan/contracts';
import type { HostOptions } from '@banyan/extraction/host';
import { OrdersModule } from '@banyan/orders';

@Module({ imports: [OrdersModule] })
export class AppModule {}

/** Orders alone, with a database of its own. */
export const service = {
  title: 'Orders',
  side: 'service',
  contracts,
  serves: [orders],
  keys: identity,
  module: AppModule,
} satisfies HostOptions;
