import type { AnyContract, Side } from '@banyan/kernel';
import type { Cache, Forgotten, Kept } from '@banyan/platform/cache';
import type { QueryContext } from './handlers.js';
import type { Placement } from './placement.js';
import { currentScope } from './scope.js';

interface Owned {
  side: Side;
  epoch: number | undefined;
}

/**
 * Answers of a context's queries that are the same for whoever asks, kept in the cache; keys and groups are the context's
 * own. Only the side that owns the context keeps any: what a bridge writes into a copy makes nobody forget. Who has
 * written there lately is answered by the database, so that he sees it on every instance.
 */
export class KeptAnswers {
  /** By context, how its ownership was seen last; null: it is elsewhere. */
  readonly #seen = new Map<string, Owned | null>();

  constructor(
    private readonly cache: Cache,
    private readonly placement: Placement,
  ) {
    placement.onChange?.((context) => this.#seen.has(context) && this.#owned(context));
  }

  /** Whether from the cache or from `load`: it has the same errors. */
  async answer<T>({ name }: AnyContract, ctx: QueryContext, kept: Kept<T>, load: () => Promise<T>): Promise<T> {
    const side = this.#owned(name);
    if (side === undefined || ctx.envelope.consistency?.[name]) return load();
    const { keys, groups } = named(name, side, { keys: [kept.key], groups: kept.groups });
    return this.cache.through({ ...kept, key: keys[0]!, groups: [...groups, allOf(name, side)] }, load);
  }

  /** In a handler it waits for the commit, and is done before the caller hears of it, as far as this process goes. */
  forget({ name }: AnyContract, what: Forgotten): void {
    const side = this.#owned(name);
    if (side === undefined) return;
    const now = () => void this.cache.forget(named(name, side, what));
    const afterCommit = currentScope()?.afterCommit;
    if (afterCommit) afterCommit(now);
    else now();
  }

  /** The side, if the context is owned here. What was kept under another owner, or an earlier epoch, is forgotten. */
  #owned(context: string): Side | undefined {
    const where = this.placement.decide(context, 'job');
    const owned = where.at === 'local' ? { side: where.side ?? 'monolith', epoch: where.epoch } : null;
    const seen = this.#seen.get(context);
    if (seen === undefined || seen?.side !== owned?.side || seen?.epoch !== owned?.epoch) {
      this.#seen.set(context, owned);
      if (owned) void this.cache.forget({ groups: [allOf(context, owned.side)] });
    }
    return owned?.side;
  }
}

/** Both sides may use one Redis. */
const named = (context: string, side: string, { keys = [], groups = [] }: Forgotten) => ({
  keys: keys.map((key) => `${context}/${side}/${key}`),
  groups: groups.map((group) => `${context}/${side}/${group}`),
});

const allOf = (context: string, side: string): string => `${context}/${side}`;
