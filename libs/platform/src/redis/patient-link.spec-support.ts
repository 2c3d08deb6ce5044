import type { Redis, RedisOptions } from 'ioredis';
import { RedisLink } from './index.js';

/** Longer than any spec, ms. */
const LONG = 120_000;

/** A way to Redis that waits for every answer: on a busy machine one that is late is no sign that Redis is away. */
export class PatientLink extends RedisLink {
  override connect(options: RedisOptions): Redis {
    return super.connect({ ...options, commandTimeout: LONG, connectTimeout: LONG });
  }
}

type Script = (count: number, ...keysAndArguments: unknown[]) => Promise<unknown>;

/** The leases of a `RedisCache` on this link last: who is held up in the middle of a load has not lost its own. */
export function withLongLeases(link: RedisLink): void {
  const scripts = link.commands as unknown as Record<'banyanAsk' | 'banyanLeave', Script>;
  for (const name of ['banyanAsk', 'banyanLeave'] as const) {
    const run = scripts[name].bind(scripts);
    // Behind the keys: my name, and how long the lease lasts (0: it is given up).
    scripts[name] = (count, ...rest) => run(count, ...rest.with(count + 1, rest[count + 1] && LONG));
  }
}
