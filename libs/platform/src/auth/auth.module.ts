import { type DynamicModule, type InjectionToken, Module, type ModuleMetadata } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { Config } from '../config/index.js';
import { AccessGuard } from './access.guard.js';
import { AccessTokens, type KeySource } from './access-tokens.js';

interface AuthOptions {
  imports?: ModuleMetadata['imports'];
  inject?: InjectionToken[];
  /** Makes the key source from what is injected, such as the identity context's client. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- as Nest types what it injects
  keySource: (...injected: any[]) => KeySource;
}

/** Puts the guard in front of every handler of the app. Needs `Config`. */
@Module({})
export class AuthModule {
  static with({ imports, inject = [], keySource }: AuthOptions): DynamicModule {
    return {
      module: AuthModule,
      global: true,
      imports,
      providers: [
        {
          provide: AccessTokens,
          inject: [Config, ...inject],
          useFactory: (config: Config, ...injected: unknown[]) => new AccessTokens(keySource(...injected), config.auth),
        },
        { provide: APP_GUARD, useClass: AccessGuard },
      ],
      exports: [AccessTokens],
    };
  }
}
