/** When a key signs and how long it is published. */
export interface KeyTimes {
  kid: string;
  createdAt: Date;
  signFrom: Date;
  /** Null on the newest key. */
  publishUntil: Date | null;
}

/** The key that signs at `now`: of those that may sign, the one that started last. */
export function signingKeyAt<K extends KeyTimes>(keys: readonly K[], now: Date): K | undefined {
  return keys
    .filter((key) => key.signFrom <= now)
    .reduce<K | undefined>((best, key) => (best && best.signFrom >= key.signFrom ? best : key), undefined);
}

/** The end of the chain: the key that a new one replaces. */
export const newestKey = <K extends KeyTimes>(keys: readonly K[]): K | undefined =>
  keys.find((key) => key.publishUntil === null);

export const isDue = (key: KeyTimes, lifetimeSeconds: number, now: Date): boolean =>
  key.createdAt.getTime() + lifetimeSeconds * 1000 <= now.getTime();

/**
 * A new key is published this long before it signs: whoever keeps the key set (`max-age` is half of it) has seen it
 * by then. The first key signs at once, there is nothing before it.
 */
export const leadMs = 10 * 60_000;

export interface Succession {
  signFrom: Date;
  /** When the key before may leave the key set: its last token has expired, with `leadMs` for slow clocks and caches. */
  publishUntil: Date;
}

export function succession(previous: KeyTimes | undefined, accessTokenSeconds: number, now: Date): Succession {
  const signFrom = previous ? new Date(now.getTime() + leadMs) : now;
  return { signFrom, publishUntil: new Date(signFrom.getTime() + accessTokenSeconds * 1000 + leadMs) };
}
