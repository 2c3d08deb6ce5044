import { z } from 'zod';

const Pointer = z
  .string()
  .max(512)
  .regex(/^(\/[^/]*)+$/, 'a JSON pointer such as /items/*/price, `*` for any name or index');

/**
 * What is no difference in the answers of one operation. Places are JSON pointers (RFC 6901) in which a segment `*`
 * stands for any name or index.
 */
export const Rules = z.strictObject({
  /** Left out on both sides, with all that is below. */
  ignore: z.array(Pointer).optional(),
  /** Lists whose order means nothing: compared by value. */
  unordered: z.array(Pointer).optional(),
  /** Numbers that may differ by so much. */
  numbers: z.record(Pointer, z.number().min(0)).optional(),
  /** RFC 3339 times that may differ by so many ms. */
  times: z.record(Pointer, z.number().min(0)).optional(),
});
export type Rules = z.output<typeof Rules>;

export type Path = readonly (string | number)[];

export const noRules: Rules = {};

/** All of `rules` together. */
export const joinRules = (...rules: (Rules | undefined)[]): Rules => ({
  ignore: rules.flatMap((each) => each?.ignore ?? []),
  unordered: rules.flatMap((each) => each?.unordered ?? []),
  numbers: Object.assign({}, ...rules.map((each) => each?.numbers)),
  times: Object.assign({}, ...rules.map((each) => each?.times)),
});

export const pointerOf = (path: Path): string =>
  path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');

const segmentsOf = (pointer: string): string[] =>
  pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));

type Pattern = readonly string[];

const matches = (pattern: Pattern, path: Path): boolean =>
  pattern.length === path.length && pattern.every((part, at) => part === '*' || part === String(path[at]));

/** Rules, ready to be asked about a place. */
export class RuleBook {
  static readonly #known = new WeakMap<Rules, RuleBook>();

  /** The book of one rules object is made once: rules are asked for with every answer. */
  static of(rules: Rules): RuleBook {
    let book = RuleBook.#known.get(rules);
    if (!book) RuleBook.#known.set(rules, (book = new RuleBook(rules)));
    return book;
  }

  readonly #ignore: Pattern[];
  readonly #unordered: Pattern[];
  readonly #numbers: [Pattern, number][];
  readonly #times: [Pattern, number][];

  private constructor({ ignore = [], unordered = [], numbers = {}, times = {} }: Rules) {
    this.#ignore = ignore.map(segmentsOf);
    this.#unordered = unordered.map(segmentsOf);
    this.#numbers = Object.entries(numbers).map(([pointer, by]) => [segmentsOf(pointer), by]);
    this.#times = Object.entries(times).map(([pointer, ms]) => [segmentsOf(pointer), ms]);
  }

  ignores(path: Path): boolean {
    return this.#ignore.some((pattern) => matches(pattern, path));
  }

  isUnordered(path: Path): boolean {
    return this.#unordered.some((pattern) => matches(pattern, path));
  }

  /** Has the value there no say in which item is which: left out, or known only roughly? */
  isLoose(path: Path): boolean {
    return this.ignores(path) || [...this.#numbers, ...this.#times].some(([pattern]) => matches(pattern, path));
  }

  /** Are the two values as near to one another as the rules ask for? */
  tolerates(path: Path, a: unknown, b: unknown): boolean {
    if (typeof a === 'number' && typeof b === 'number')
      return this.#numbers.some(([pattern, by]) => matches(pattern, path) && Math.abs(a - b) <= by);
    if (typeof a === 'string' && typeof b === 'string')
      return this.#times.some(
        ([pattern, ms]) => matches(pattern, path) && Math.abs(Date.parse(a) - Date.parse(b)) <= ms,
      );
    return false;
  }
}
