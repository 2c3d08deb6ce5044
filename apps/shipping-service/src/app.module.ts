import { Module } from '@nestjs/common';
import { contracts, identity, shipping } from '@banyan/contracts';
import type { HostOptions } from '@banyan/extraction/host';
import { ShippingModule } from '@banyan/shipping';

@Module({ imports: [ShippingModule] })
export class AppModule {}

/** Shipping alone, with a database of its own. */
export const service = {
  title: 'Shipping',
  side: 'service',
  contracts,
  serves: [shipping],
  keys: identity,
  module: AppModule,
} satisfies HostOptions;
