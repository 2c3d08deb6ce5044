import { createHash, randomUUID } from 'node:crypto';
import { type ConsistencyTokens, formatTokens, parseTokens } from '@banyan/kernel';
import type { RedisLink } from '@banyan/platform/redis';
import { LRUCache } from 'lru-cache';
import { REMEMBERED, type SharedTokens, merged } from './who.js';

/** A write's answer waits no longer than this for the other proxies to know of it, and a read for what they know, ms. */
const PATIENCE = 50;
/**
 * After an outage every proxy tells again what it has told, because Redis may have come back empty. Until then nobody
 * knows what is missing, ms.
 */
const CATCHING_UP = 2_000;
/** So many at once. */
const BATCH = 500;

/** In Redis: per caller a hash with one field for each proxy, so that no two of them write the same one. */
export class RedisTokens implements SharedTokens {
  readonly #me = randomUUID().slice(0, 8);
  readonly #told = new LRUCache<string, ConsistencyTokens>({ max: 50_000, ttl: REMEMBERED });
  #believedFrom = Infinity;

  constructor(
    private readonly link: RedisLink,
    private readonly patience = PATIENCE,
  ) {
    // Whoever has just started has missed nothing that the others could not tell.
    let wasUp = link.up;
    link.onUp(() => {
      void this.#isUp(wasUp ? 0 : CATCHING_UP);
      wasUp = false;
    });
    link.commands.on('close', () => (this.#believedFrom = Infinity));
  }

  async tell(key: string, tokens: ConsistencyTokens): Promise<void> {
    this.#told.set(key, tokens);
    await within(this.patience, this.#write([[key, tokens]]));
  }

  async ask(key: string): Promise<ConsistencyTokens | undefined> {
    if (performance.now() < this.#believedFrom) return undefined;
    const fields = await within(this.patience, this.link.commands.hvals(nameOf(key)));
    return fields?.reduce<ConsistencyTokens>((all, text) => merged(all, parseTokens(text)), {});
  }

  async #write(all: readonly [string, ConsistencyTokens][]): Promise<void> {
    const writes = this.link.commands.pipeline();
    for (const [key, tokens] of all) {
      const name = nameOf(key);
      writes.hset(name, this.#me, formatTokens(tokens)).pexpire(name, REMEMBERED);
    }
    await writes.exec();
  }

  async #isUp(inMs: number): Promise<void> {
    this.#believedFrom = performance.now() + inMs;
    const told = [...this.#told.entries()];
    // What fails is told the next time.
    for (let from = 0; from < told.length && this.link.up; from += BATCH)
      await this.#write(told.slice(from, from + BATCH)).catch(() => {});
  }
}

/** Users and sessions are nobody's business there. */
const nameOf = (key: string): string => `banyan:tokens:${createHash('sha256').update(key).digest('base64url')}`;

/** Undefined when it fails, or takes longer. */
function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms, undefined);
    work.then(
      (value) => (clearTimeout(timer), resolve(value)),
      () => (clearTimeout(timer), resolve(undefined)),
    );
  });
}
