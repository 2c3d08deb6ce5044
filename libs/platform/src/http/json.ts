import { fail } from './errors.js';

/** Levels of `{` and `[` that any JSON of ours may have, unless a setting says otherwise. */
export const defaultJsonDepth = 32;

/**
 * The JSON value in `bytes`. Throws MALFORMED_JSON, also for keys that reach for a prototype and for text that holds
 * NUL or half of a surrogate pair (Postgres refuses both, and would make it a 500), and JSON_TOO_DEEP. Depth is counted
 * on the bytes, before anything is built that a recursive reader could choke on.
 */
export function parseJson(bytes: Buffer, maxDepth: number = defaultJsonDepth): unknown {
  // Less than this cannot nest deeper than the limit.
  if (bytes.length > maxDepth) refuseDeep(bytes, maxDepth);
  const text = bytes.toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw fail('MALFORMED_JSON', 'This is not valid JSON', undefined, { cause: error });
  }
  // An escape could spell any of the words, so text with one is looked at as well.
  if (text.includes('\\u') || text.includes('__proto__') || text.includes('prototype')) refuseDangerous(value);
  return value;
}

/** Depth is bounded by now, so recursion is too. */
function refuseDangerous(value: unknown): void {
  if (typeof value === 'string') {
    if (value.includes('\0')) throw fail('MALFORMED_JSON', 'Text must not contain NUL');
    if (!value.isWellFormed()) throw fail('MALFORMED_JSON', 'Text must not contain half of a surrogate pair');
  } else if (Array.isArray(value)) value.forEach(refuseDangerous);
  else if (typeof value === 'object' && value !== null)
    for (const [key, inner] of Object.entries(value)) {
      const reaches =
        key === 'constructor' && typeof inner === 'object' && inner !== null && Object.hasOwn(inner, 'prototype');
      if (key === '__proto__' || reaches) throw fail('MALFORMED_JSON', 'A key reaches for a prototype');
      refuseDangerous(key);
      refuseDangerous(inner);
    }
}

const quote = 0x22;
const backslash = 0x5c;

function refuseDeep(bytes: Buffer, maxDepth: number): void {
  let depth = 0;
  let inText = false;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (inText) {
      if (byte === backslash) at++;
      else if (byte === quote) inText = false;
    } else if (byte === quote) inText = true;
    else if (byte === 0x7b || byte === 0x5b) {
      if (++depth > maxDepth) throw fail('JSON_TOO_DEEP', `At most ${maxDepth} levels`);
    } else if (byte === 0x7d || byte === 0x5d) depth--;
  }
}
