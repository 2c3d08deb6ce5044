import { Module } from '@nestjs/common';
import { contracts, identity, inventory } from '@banyan/contracts';
import type { HostOptions } from '@banyan/extraction/host';
import { InventoryModule } from '@banyan/inventory';

@Module({ imports: [InventoryModule] })
export class AppModule {}

/** Inventory alone, with a database of its own. */
export const service = {
  title: 'Inventory',
  side: 'service',
  contracts,
  serves: [inventory],
  keys: identity,
  module: AppModule,
} satisfies HostOptions;
