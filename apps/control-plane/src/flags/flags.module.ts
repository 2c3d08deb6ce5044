import { type DynamicModule, type InjectionToken, Logger, Module, type OnApplicationShutdown } from '@nestjs/common';
import { flagServerFrom } from '@banyan/extraction/flags';
import { Config } from '@banyan/platform/config';
import type { Database } from '@banyan/platform/database';
import { AdminApi } from './admin-api.http.js';
import { ClientApi } from './client-api.http.js';
import { type Audit, FlagStore } from './flag-store.js';
import { OwnFlags } from './own-flags.js';
import { UnleashFlags } from './unleash-flags.js';

export interface FlagsOptions {
  contexts: readonly string[];
  /** The database of schema `control`. */
  database: Database;
  audit: Audit;
}

interface FlagsModuleOptions {
  config: Config;
  inject?: InjectionToken[];
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- as Nest types what it injects
  useFactory: (...injected: any[]) => FlagsOptions;
}

/**
 * Provides a started `FlagStore`: the control plane's own, with Unleash's API in front of it, or, when UNLEASH_URL is
 * set, the flags of that server.
 */
@Module({})
export class FlagsModule implements OnApplicationShutdown {
  constructor(private readonly store: FlagStore) {}

  static with({ config, inject = [], useFactory }: FlagsModuleOptions): DynamicModule {
    const own = config.flags.url === undefined;
    const store = {
      provide: own ? OwnFlags : UnleashFlags,
      inject,
      useFactory: async (...injected: unknown[]) => {
        const store = flagStoreFrom(config, useFactory(...injected));
        await store.start();
        return store;
      },
    };
    return {
      module: FlagsModule,
      global: true,
      controllers: own ? [ClientApi, AdminApi] : [],
      providers: [store, { provide: FlagStore, useExisting: store.provide }],
      exports: [FlagStore],
    };
  }

  onApplicationShutdown(): Promise<void> {
    return this.store.stop();
  }
}

/** The store that the configuration asks for; not started. */
function flagStoreFrom(config: Config, options: FlagsOptions): FlagStore {
  const logger = new Logger('Flags');
  const log = (msg: string) => logger.warn({ msg });
  const { url, refreshMs, adminToken, project, environment } = config.flags;
  if (url === undefined) return new OwnFlags({ ...options, refreshMs, log });
  const server = flagServerFrom(config, 'control-plane', log);
  if (!server) throw new Error('UNLEASH_URL names no server');
  return new UnleashFlags({ ...options, server, adminToken, project, environment, log });
}
