import { malformed, type Refusal } from './problem.js';

/** A request target as it is matched and as it is sent on: the same text. */
export interface Target {
  path: string;
  /** With the question mark; empty without a query. */
  query: string;
}

/** Most targets: plain segments, in which there is nothing to make equal. */
const PLAIN = /^(?:\/|(?:\/[\w~!$&'()*+,=:@-][\w~!$&'()*+,=:@.-]*)+\/?)$/;
const PATH = /^\/[\w~!$&'()*+,=:@.;/%|^"{}[\]`-]*$/;
const QUERY = /^[\x21\x22\x24-\x7e]*$/;
const ESCAPE = /%([0-9A-Fa-f]{2})?/g;
const UNRESERVED = /[\w~.-]/;

/**
 * A target in the one spelling that everybody reads alike, or why there is none. Routing bypasses live on two readers:
 * one that sees `/v1/%73tock`, `/v1//stock`, `/x/..;/v1/stock` or `\v1\stock` as it stands, and one that resolves it.
 * Escapes of unreserved characters are resolved (RFC 3986, 6.2.2.2); whatever else has two readings is refused.
 */
export function normalise(url: string): Target | Refusal {
  if (url.charCodeAt(0) !== 47) return malformed('The request target must be a path');
  const at = url.indexOf('?');
  const raw = at < 0 ? url : url.slice(0, at);
  const query = at < 0 ? '' : url.slice(at);
  if (!QUERY.test(query)) return malformed('The query has characters that must be escaped');
  if (PLAIN.test(raw)) return { path: raw, query };
  return normalisePath(raw, query);
}

function normalisePath(raw: string, query: string): Target | Refusal {
  if (!PATH.test(raw)) return malformed('The path has characters that must be escaped');
  let refused: string | undefined;
  const path = raw.replace(ESCAPE, (escape, hex: string | undefined) => {
    if (hex === undefined) {
      refused ??= 'The path has a broken escape';
      return escape;
    }
    const code = Number.parseInt(hex, 16);
    const character = String.fromCharCode(code);
    if (code < 0x20 || code === 0x7f) refused ??= 'The path has an escaped control character';
    // Some servers split at them, others do not.
    if (character === '/' || character === '\\') refused ??= 'The path has an escaped slash';
    return UNRESERVED.test(character) ? character : `%${hex.toUpperCase()}`;
  });
  // Escapes of escapes are for those who decode twice.
  if (/%25[0-9A-F]{2}/i.test(path)) refused ??= 'The path is escaped twice';
  if (path.includes('//')) refused ??= 'The path has an empty segment';
  for (const segment of path.split('/')) {
    const name = segment.split(';', 1)[0]!;
    if (name === '.' || name === '..') refused ??= 'The path has dot segments';
  }
  return refused === undefined ? { path, query } : malformed(refused);
}

/** A table of path prefixes. A prefix ends at a segment's end: `/v1/stock` takes `/v1/stock/7`, not `/v1/stocks`. */
export class RouteTable<R extends { path: string }> {
  readonly #routes: readonly (readonly [prefix: string, route: R])[];

  constructor(routes: readonly R[]) {
    this.#routes = routes
      .map((route) => [route.path.toLowerCase().replace(/\/+$/, ''), route] as const)
      .sort(([a], [b]) => b.length - a.length);
  }

  /**
   * The route of the longest prefix. Letter case is no way round a route: many servers do not mind it, and a request for
   * `/V1/Stock` must not end where nobody owns the stock.
   */
  match(path: string): R | undefined {
    const lower = path.toLowerCase();
    for (const [prefix, route] of this.#routes)
      if (lower.startsWith(prefix)) {
        const next = lower.charCodeAt(prefix.length);
        // End of the path, a slash or a semicolon.
        if (Number.isNaN(next) || next === 47 || next === 59) return route;
      }
    return undefined;
  }
}
