import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { contracts, identity } from '@banyan/contracts';
import { type HostOptions, createHost } from '@banyan/extraction/host';
import type { Config } from '@banyan/platform/config';
import { AppModule } from './app.module.js';

export const monolith = {
  title: 'Banyan shop',
  side: 'monolith',
  contracts,
  serves: contracts,
  keys: identity,
  module: AppModule,
} satisfies HostOptions;

/** The monolith on the database of `config`, migrated and initialised, not listening yet. */
export const createMonolith = (
  config: Config,
  options: Partial<Pick<HostOptions, 'logger' | 'bufferLogs' | 'observe' | 'placement' | 'rpc'>> = {},
): Promise<NestFastifyApplication> => createHost(config, { ...monolith, ...options });
