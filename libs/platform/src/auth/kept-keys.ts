import type { JSONWebKeySet } from 'jose';
import type { Cache, Kept } from '../cache/index.js';
import type { KeySource } from './access-tokens.js';

/** In the cache. Forgotten when a key comes or goes; kept for a day, in case whoever has the keys is away. */
export const KEY_SET: Kept<JSONWebKeySet> = {
  ...{ key: 'key-set', freshMs: 60_000, staleMs: 24 * 3600_000 },
  // Before the first key there is nothing worth it.
  keepIf: ({ keys }) => keys.length > 0,
};

/** The key set through the cache: all processes share one, and one that starts while its source is away has it too. */
export const keptKeys =
  (cache: Cache, load: () => Promise<JSONWebKeySet>): KeySource =>
  async ({ missing }) => {
    let asked = false;
    const kept = await cache.through(KEY_SET, () => ((asked = true), load()));
    if (asked || missing === undefined || has(kept, missing)) return kept;
    const current = await load().catch(() => kept);
    // Anybody can name a key that there is not: what is kept for all goes only when there is something newer.
    if (has(current, missing)) await cache.forget({ keys: [KEY_SET.key] });
    return current;
  };

const has = ({ keys }: JSONWebKeySet, kid: string): boolean => keys.some((key) => key.kid === kid);
