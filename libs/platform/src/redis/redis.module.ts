import { type DynamicModule, Inject, Module, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { Cache, RedisCache, noCache } from '../cache/index.js';
import { Config } from '../config/index.js';
import { readiness } from '../telemetry/index.js';
import { RedisLink } from './redis-link.js';

const WITHOUT = 'nobody can sign in, jobs wait, nothing comes from the cache; the rest goes on';

/**
 * Provides `RedisLink` (undefined without REDIS_URL) and `Cache`, everywhere. The start waits a second for Redis at most,
 * and fails only when Redis refuses us.
 */
@Module({})
export class RedisModule implements OnModuleInit, OnApplicationShutdown {
  #forget: (() => void) | undefined;

  static forRoot(): DynamicModule {
    return {
      module: RedisModule,
      global: true,
      providers: [
        {
          provide: RedisLink,
          inject: [Config],
          useFactory: ({ redisUrl }: Config) => (redisUrl === undefined ? undefined : new RedisLink(redisUrl, WITHOUT)),
        },
        {
          provide: Cache,
          inject: [{ token: RedisLink, optional: true }],
          useFactory: (link?: RedisLink) => (link ? new RedisCache(link) : noCache),
        },
      ],
      exports: [RedisLink, Cache],
    };
  }

  constructor(
    @Inject(RedisLink) private readonly link: RedisLink | undefined,
    private readonly cache: Cache,
  ) {}

  async onModuleInit(): Promise<void> {
    const { link } = this;
    if (!link) return;
    await link.start();
    this.#forget = readiness.degraded('redis', () => (link.up ? undefined : `${link.where} does not answer`));
  }

  onApplicationShutdown(): void {
    this.#forget?.();
    this.cache.close();
    this.link?.close();
  }
}
