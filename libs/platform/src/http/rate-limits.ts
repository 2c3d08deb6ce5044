import { type RateLimiterAbstract, RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import type { Config } from '../config/index.js';
import { fail } from './errors.js';

/**
 * The limits there are. A login takes a point before the password is checked, or a thousand parallel guesses would all
 * pass; a login that succeeds gives its points back, so that only failures count.
 */
const limits = {
  /** Guesses at one account, from wherever. */
  'login.account': { points: 10, seconds: 15 * 60 },
  /** Guesses from one address, at whatever account; in-flight logins count, so it leaves room for many at once. */
  'login.address': { points: 600, seconds: 15 * 60 },
  'register.address': { points: 2_000, seconds: 15 * 60 },
  /** Requests that change something, per address. Its points come from the settings. */
  'write.address': { points: 0, seconds: 1 },
};

export type LimiterName = keyof typeof limits;

/** Makes the store of one limiter. In memory now; Redis or Postgres fit the same shape. */
export type LimiterFactory = (options: { keyPrefix: string; points: number; duration: number }) => RateLimiterAbstract;

/** Named limits on what one account or address may do in a time. With BANYAN_RATE_LIMITS=off nothing is limited. */
export class RateLimits {
  private readonly limiters = new Map<LimiterName, RateLimiterAbstract>();

  constructor(config: Config, make: LimiterFactory = (options) => new RateLimiterMemory(options)) {
    if (!config.http.rateLimits) return;
    for (const name of Object.keys(limits) as LimiterName[]) {
      const { points, seconds } = limits[name];
      this.limiters.set(
        name,
        make({
          keyPrefix: name,
          points: name === 'write.address' ? config.http.writesPerSecond * seconds : points,
          duration: seconds,
        }),
      );
    }
  }

  /** Takes a point. Throws RATE_LIMITED (429, with Retry-After) when none is left. */
  async take(name: LimiterName, key: string): Promise<void> {
    try {
      await this.limiters.get(name)?.consume(key);
    } catch (refusal) {
      if (!(refusal instanceof RateLimiterRes)) throw refusal;
      throw fail('RATE_LIMITED', 'Too many requests: wait before you try again', {
        retryAfterMs: refusal.msBeforeNext,
      });
    }
  }

  /** Gives one point back: what was counted turned out to be harmless. */
  async giveBack(name: LimiterName, key: string): Promise<void> {
    await this.limiters.get(name)?.reward(key);
  }

  /** Forgets what was counted for a key. */
  async clear(name: LimiterName, key: string): Promise<void> {
    await this.limiters.get(name)?.delete(key);
  }
}
