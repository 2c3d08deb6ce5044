import { Module } from '@nestjs/common';
import { contracts, identity, payments } from '@banyan/contracts';
import type { HostOptions } from '@banyan/extraction/host';
import { PaymentsModule } from '@banyan/payments';

@Module({ imports: [PaymentsModule] })
export class AppModule {}

/** Payments alone, with a database of its own. */
export const service = {
  title: 'Payments',
  side: 'service',
  contracts,
  serves: [payments],
  keys: identity,
  module: AppModule,
} satisfies HostOptions;
