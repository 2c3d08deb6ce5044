import { Module } from '@nestjs/common';
import { contracts, identity, notifications } from '@banyan/contracts';
import type { HostOptions } from '@banyan/extraction/host';
import { NotificationsModule } from '@banyan/notifications';

@Module({ imports: [NotificationsModule] })
export class AppModule {}

/** Notifications alone, with a database of its own. */
export const service = {
  title: 'Notifications',
  side: 'service',
  contracts,
  serves: [notifications],
  keys: identity,
  module: AppModule,
} satisfies HostOptions;
