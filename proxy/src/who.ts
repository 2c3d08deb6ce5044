import { type ConsistencyTokens, laterToken, parseTokens } from '@banyan/kernel';
import { LRUCache } from 'lru-cache';
import type { Admitted } from './admission.js';

/** As much of a caller as routing needs, unverified: it decides which side answers, never what the answer may hold. */
export interface Who {
  userId?: string;
  sessionId?: string;
}

const nobody: Who = {};
const COOKIE = /(?:^|;\s*)banyan_session=([\w.~-]{1,128})(?:;|$)/;
const SESSION = /^[\w.~-]{1,128}$/;

/** Bearer tokens whose payload has been looked at: 1 us instead of 4. Held for as long as an access token lives. */
const subjects = new LRUCache<string, { sub: string | undefined }>({ max: 10_000, ttl: 15 * 60_000 });

function subjectOf(authorization: string): string | undefined {
  const payload = /^Bearer [\w-]+\.([\w-]{1,4096})\.[\w-]*$/i.exec(authorization)?.[1];
  if (payload === undefined) return undefined;
  const seen = subjects.get(payload);
  if (seen) return seen.sub;
  let sub: string | undefined;
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString());
    const claimed = (claims as { sub?: unknown } | null)?.sub;
    if (typeof claimed === 'string' && claimed.length <= 128) sub = claimed;
  } catch {
    // No JSON: somebody else's token, or nobody's.
  }
  subjects.set(payload, { sub });
  return sub;
}

/** The user, else the session (cookie `banyan_session`, or header `Banyan-Session`), else nobody. */
export function whoAsks({ authorization, cookie, session }: Admitted): Who {
  const userId = authorization === undefined ? undefined : subjectOf(authorization);
  if (userId !== undefined) return { userId };
  const fromCookie = cookie === undefined ? undefined : COOKIE.exec(cookie)?.[1];
  const sessionId = fromCookie ?? (session !== undefined && SESSION.test(session) ? session : undefined);
  return sessionId === undefined ? nobody : { sessionId };
}

/** Where several proxies tell each other what their callers have been given. */
export interface SharedTokens {
  /** Resolves when every proxy that asks from then on gets it, or when that takes too long. Never rejects. */
  tell(key: string, tokens: ConsistencyTokens): Promise<void>;
  /** What all proxies have told. Undefined: nobody can say right now. Never rejects. */
  ask(key: string): Promise<ConsistencyTokens | undefined>;
}

/** A copy that is further behind than this is not read from: 60 s of lag stop a canary long before, ms. */
export const REMEMBERED = 60_000;

/** The tokens that callers have been given, for those that do not send them back. */
export class WriteMemory {
  readonly #tokens: LRUCache<string, ConsistencyTokens>;
  readonly #shared: SharedTokens | undefined;

  constructor({
    max = 50_000,
    ttlMs = REMEMBERED,
    shared,
  }: { max?: number; ttlMs?: number; shared?: SharedTokens } = {}) {
    this.#tokens = new LRUCache({ max, ttl: ttlMs });
    this.#shared = shared;
  }

  get empty(): boolean {
    return this.#tokens.size === 0;
  }

  /** Where there are other proxies: resolves when they know it too, as far as that is possible. */
  remember(who: Who, header: string): Promise<void> | undefined {
    const key = keyOf(who);
    const told = parseTokens(header);
    if (key === undefined || Object.keys(told).length === 0) return undefined;
    const all = merged(this.#tokens.get(key), told);
    this.#tokens.set(key, all);
    return this.#shared?.tell(key, all);
  }

  /** What the caller sent, together with what it is known to have been given. */
  recall(who: Who, header: string | undefined): ConsistencyTokens {
    const sent = parseTokens(header);
    const key = keyOf(who);
    return key === undefined ? sent : merged(this.#tokens.get(key), sent);
  }

  /** Learns what other proxies know of the caller; false if that cannot be known. Undefined: there is nothing to learn. */
  catchUp(who: Who): Promise<boolean> | undefined {
    const key = keyOf(who);
    if (key === undefined || !this.#shared) return undefined;
    return this.#shared.ask(key).then((theirs) => {
      if (!theirs) return false;
      if (Object.keys(theirs).length > 0) this.#tokens.set(key, merged(this.#tokens.get(key), theirs));
      return true;
    });
  }
}

const keyOf = ({ userId, sessionId }: Who): string | undefined =>
  userId !== undefined ? `u:${userId}` : sessionId !== undefined ? `s:${sessionId}` : undefined;

export function merged(known: ConsistencyTokens | undefined, more: ConsistencyTokens): ConsistencyTokens {
  if (!known) return more;
  const all = { ...known };
  // The names come from clients: `constructor` is one too.
  for (const [context, token] of Object.entries(more))
    all[context] = laterToken(Object.hasOwn(all, context) ? all[context] : undefined, token);
  return all;
}
