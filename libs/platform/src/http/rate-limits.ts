import { createHash } from 'node:crypto';
import { type RateLimiterAbstract, RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import type { Config } from '../config/index.js';
import type { RedisLink } from '../redis/index.js';
import { fail } from './errors.js';

/**
 * The limits there are. A login takes a point before the password is checked, or a thousand parallel guesses would all
 * pass; a login that succeeds gives its points back, so that only failures count.
 *
 * With REDIS_URL all processes count together. `away` says what holds while Redis does not answer: `closed`, nobody
 * passes, because nobody knows how often he has tried; or `own`, every process counts for itself.
 */
const limits = {
  /** Guesses at one account, from wherever. */
  'login.account': { points: 10, seconds: 15 * 60, away: 'closed' },
  /** Guesses from one address, at whatever account; in-flight logins count, so it leaves room for many at once. */
  'login.address': { points: 600, seconds: 15 * 60, away: 'closed' },
  'register.address': { points: 2_000, seconds: 15 * 60, away: 'own' },
  /** Requests that change something, per address. Its points come from the settings. */
  'write.address': { points: 0, seconds: 1, away: 'own' },
} as const;

export type LimiterName = keyof typeof limits;

/** Named limits on what one account or address may do in a time. With BANYAN_RATE_LIMITS=off nothing is limited. */
export class RateLimits {
  private readonly limiters = new Map<LimiterName, RateLimiterAbstract>();

  constructor(
    config: Config,
    private readonly redis?: RedisLink,
  ) {
    if (!config.http.rateLimits) return;
    for (const name of Object.keys(limits) as LimiterName[]) {
      const { seconds, away } = limits[name];
      const points = name === 'write.address' ? config.http.writesPerSecond * seconds : limits[name].points;
      const options = { keyPrefix: `banyan:limit:${name}`, points, duration: seconds };
      const own = (): RateLimiterAbstract => new RateLimiterMemory(options);
      this.limiters.set(
        name,
        redis
          ? new RateLimiterRedis({
              ...options,
              storeClient: redis.commands,
              rejectIfRedisNotReady: true,
              ...(away === 'own' && { insuranceLimiter: own() }),
            })
          : own(),
      );
    }
  }

  /**
   * Takes a point. Throws RATE_LIMITED (429, with Retry-After) when none is left, and UPSTREAM_UNAVAILABLE (503, with
   * Retry-After) when nobody can tell.
   */
  async take(name: LimiterName, key: string): Promise<void> {
    try {
      await this.limiters.get(name)?.consume(this.named(key));
    } catch (refusal) {
      if (refusal instanceof RateLimiterRes)
        throw fail('RATE_LIMITED', 'Too many requests: wait before you try again', {
          retryAfterMs: refusal.msBeforeNext,
        });
      const text = 'This is closed for a moment, because attempts cannot be counted';
      throw fail('UPSTREAM_UNAVAILABLE', text, { retryAfterMs: 2_000 }, { cause: refusal });
    }
  }

  /** Gives one point back: what was counted turned out to be harmless. Best effort: the point comes back by itself. */
  async giveBack(name: LimiterName, key: string): Promise<void> {
    await this.limiters
      .get(name)
      ?.reward(this.named(key))
      .catch(() => {});
  }

  /** Forgets what was counted for a key. Best effort: it is forgotten by itself. */
  async clear(name: LimiterName, key: string): Promise<void> {
    await this.limiters
      .get(name)
      ?.delete(this.named(key))
      .catch(() => {});
  }

  /** No e-mail address of anybody is to be found in Redis, or in a copy of it. */
  private named(key: string): string {
    return this.redis ? createHash('sha256').update(key).digest('base64url') : key;
  }
}
