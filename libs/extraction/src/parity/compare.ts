import { type Answer, charsetOf, isJson, mediaTypeOf, plainBody, readJson, unreadable } from './answer.js';
import { type Path, RuleBook, type Rules, noRules, pointerOf } from './rules.js';

export type DifferenceKind = 'changed' | 'missing' | 'extra' | 'order' | 'type' | 'status' | 'content-type' | 'body';

/** One thing in which the candidate's answer is not the owner's. */
export interface Difference {
  kind: DifferenceKind;
  /** JSON pointer into the body; empty when the answer as a whole differs. */
  path: string;
  /** The owner's and the candidate's; undefined where there is none. */
  expected?: unknown;
  actual?: unknown;
}

/** Enough to see what is wrong; the rest of a body that differs everywhere is not looked at. */
const MAX_DIFFERENCES = 50;
/** Deeper than any answer of ours, and far from the end of the stack. */
const MAX_DEPTH = 200;
const MAX_BODY = 4 * 1024 * 1024;

/**
 * In what `actual` (the candidate's answer) differs from `expected` (the owner's): empty when they are equal. Of two
 * statuses nothing more is said: everything else follows from it.
 */
export function compare(expected: Answer, actual: Answer, rules: Rules = noRules): Difference[] {
  if (expected.status !== actual.status)
    return [{ kind: 'status', path: '', expected: expected.status, actual: actual.status }];
  if (mediaTypeOf(expected) !== mediaTypeOf(actual) || charsetOf(expected) !== charsetOf(actual))
    return [{ kind: 'content-type', path: '', expected: expected.contentType, actual: actual.contentType }];
  const sameEncoding = expected.encoding === actual.encoding;
  if (sameEncoding && Buffer.compare(expected.body, actual.body) === 0) return [];
  const [a, b] = [plainBody(expected, MAX_BODY), plainBody(actual, MAX_BODY)];
  if (a && b && Buffer.compare(a, b) === 0) return [];
  if (!a || !b || a.length === 0 || b.length === 0 || !isJson(expected)) return [bodies(a, b)];
  const [before, after] = [readJson(a), readJson(b)];
  if (before === unreadable || after === unreadable) return [bodies(a, b)];
  return new Comparison(RuleBook.of(rules)).of(before, after);
}

/** The same for two JSON values. */
export const compareValues = (expected: unknown, actual: unknown, rules: Rules = noRules): Difference[] =>
  new Comparison(RuleBook.of(rules)).of(expected, actual);

/** Bodies that cannot be looked into: how long they are, and nothing of what they hold. */
const bodies = (a?: Uint8Array, b?: Uint8Array): Difference => ({
  kind: 'body',
  path: '',
  expected: a && { bytes: a.length },
  actual: b && { bytes: b.length },
});

type Json = 'null' | 'array' | 'object' | 'string' | 'number' | 'boolean';

const typeOf = (value: unknown): Json =>
  value === null
    ? 'null'
    : Array.isArray(value)
      ? 'array'
      : typeof value === 'bigint'
        ? 'number'
        : (typeof value as Json);

/**
 * A walk over both values at once. It is not a structural diff from a library, because the rules decide on the way
 * what is looked at at all and which item of a list belongs to which, and because it stops after MAX_DIFFERENCES: it
 * runs in the proxy, where a diff of everything (each value cloned) would be felt by callers.
 */
class Comparison {
  readonly #found: Difference[] = [];

  constructor(private readonly rules: RuleBook) {}

  of(expected: unknown, actual: unknown): Difference[] {
    this.#values(expected, actual, []);
    return this.#found;
  }

  #add(kind: DifferenceKind, path: Path, expected?: unknown, actual?: unknown): void {
    if (this.#found.length < MAX_DIFFERENCES) this.#found.push({ kind, path: pointerOf(path), expected, actual });
  }

  #values(a: unknown, b: unknown, path: Path): void {
    if (Object.is(a, b) || this.#found.length >= MAX_DIFFERENCES || this.rules.ignores(path)) return;
    const type = typeOf(a);
    if (type !== typeOf(b)) return this.#add('type', path, a, b);
    if (path.length > MAX_DEPTH) return this.#add('body', path);
    if (type === 'array') return this.#lists(a as unknown[], b as unknown[], path);
    if (type === 'object') return this.#objects(a as Fields, b as Fields, path);
    // -0 is 0 in JSON.
    if (a !== b && !this.rules.tolerates(path, a, b)) this.#add('changed', path, a, b);
  }

  #objects(a: Fields, b: Fields, path: Path): void {
    for (const key of Object.keys(a)) {
      const at = [...path, key];
      if (Object.hasOwn(b, key)) this.#values(a[key], b[key], at);
      else if (!this.rules.ignores(at)) this.#add('missing', at, a[key]);
    }
    for (const key of Object.keys(b)) {
      const at = [...path, key];
      if (!Object.hasOwn(a, key) && !this.rules.ignores(at)) this.#add('extra', at, undefined, b[key]);
    }
  }

  /**
   * Items belong together by value first, so that one item too many is one difference and not one per item after it.
   * What is left over belongs together by position.
   */
  #lists(a: unknown[], b: unknown[], path: Path): void {
    const keys = (list: unknown[]) => list.map((item, at) => this.#key(item, [...path, at]));
    const pairs = pairsByValue(keys(a), keys(b));
    const ordered = !this.rules.isUnordered(path);
    const everyOne = pairs.length === a.length && a.length === b.length;
    const moved = ordered && pairs.some(([, at], i) => i > 0 && at < pairs[i - 1]![1]);
    // One order difference for a list that holds the same; of a list that also holds other things, those matter more.
    if (moved && everyOne) return this.#add('order', path, a, b);
    if (ordered && a.length === b.length && !everyOne)
      return a.forEach((item, at) => this.#values(item, b[at], [...path, at]));
    // Values with a tolerance have no part in the key, so equal keys are not the end of it.
    for (const [i, j] of pairs) this.#values(a[i], b[j], [...path, i]);
    const [lostA, lostB] = [rest(a.length, pairs, 0), rest(b.length, pairs, 1)];
    for (const [n, i] of lostA.entries()) {
      const j = lostB[n];
      if (j === undefined) this.#missing('missing', [...path, i], a[i]);
      else this.#values(a[i], b[j], [...path, i]);
    }
    for (const j of lostB.slice(lostA.length)) this.#missing('extra', [...path, j], b[j]);
    if (moved) this.#add('order', path, a, b);
  }

  #missing(kind: 'missing' | 'extra', at: Path, value: unknown): void {
    if (this.rules.ignores(at)) return;
    if (kind === 'missing') this.#add(kind, at, value);
    else this.#add(kind, at, undefined, value);
  }

  /** A text that is equal for equal items, whatever the order of their fields: without what the rules leave open. */
  #key(value: unknown, path: Path): string {
    if (path.length > MAX_DEPTH || this.rules.isLoose(path)) return '~';
    const type = typeOf(value);
    if (type === 'array') {
      const items = (value as unknown[]).map((item, at) => this.#key(item, [...path, at]));
      return `[${(this.rules.isUnordered(path) ? items.sort() : items).join()}]`;
    }
    if (type === 'object') {
      const fields = value as Fields;
      const names = Object.keys(fields).filter((name) => !this.rules.ignores([...path, name]));
      return `{${names
        .sort()
        .map((name) => `${JSON.stringify(name)}:${this.#key(fields[name], [...path, name])}`)
        .join()}}`;
    }
    return typeof value === 'bigint' ? String(value) : JSON.stringify(value === 0 ? 0 : value);
  }
}

type Fields = Record<string, unknown>;

/** Indices of items with equal keys, in the order of the first list; each index at most once. */
function pairsByValue(a: readonly string[], b: readonly string[]): [number, number][] {
  const places = new Map<string, number[]>();
  for (const [at, key] of b.entries()) {
    const known = places.get(key);
    if (known) known.push(at);
    else places.set(key, [at]);
  }
  const next = new Map<string, number>();
  return a.flatMap((key, i): [number, number][] => {
    const n = next.get(key) ?? 0;
    const at = places.get(key)?.[n];
    if (at === undefined) return [];
    next.set(key, n + 1);
    return [[i, at]];
  });
}

function rest(length: number, pairs: readonly [number, number][], side: 0 | 1): number[] {
  const taken = new Set(pairs.map((pair) => pair[side]));
  return Array.from({ length }, (_, at) => at).filter((at) => !taken.has(at));
}
