import { Module } from '@nestjs/common';
import { contracts, identity } from '@banyan/contracts';
import type { HostOptions } from '@banyan/extraction/host';
import { IdentityModule } from '@banyan/identity';

@Module({ imports: [IdentityModule] })
export class AppModule {}

/** Identity alone, with a database of its own. */
export const service = {
  title: 'Identity',
  side: 'service',
  contracts,
  serves: [identity],
  keys: identity,
  module: AppModule,
} satisfies HostOptions;
