import { Module } from '@nestjs/common';
import { contracts, identity, catalog } from '@banyan/contracts';
import type { HostOptions } from '@banyan/extraction/host';
import { CatalogModule } from '@banyan/catalog';

@Module({ imports: [CatalogModule] })
export class AppModule {}

/** Catalog alone, with a database of its own. */
export const service = {
  title: 'Catalog',
  side: 'service',
  contracts,
  serves: [catalog],
  keys: identity,
  module: AppModule,
} satisfies HostOptions;
