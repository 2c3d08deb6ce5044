import type { AnyContract } from '@banyan/kernel';
import { type Rules, joinRules } from './rules.js';

/** An HTTP read of a context: which query is behind it, and how its path looks. */
interface HttpRead {
  operation: string;
  query: string;
  public: boolean;
  segments: readonly string[];
}

/** A problem document names the trace it belongs to: never the same twice. */
const problemRules: Rules = { ignore: ['/traceId'] };

const isParameter = (segment: string) => /^\{\w+\}$/.test(segment);

/** Paths of what has no contract: as many names per context, then they are one. */
const MAX_NAMES = 100;
const OTHER = 'GET (other)';

/** Names reads, and knows the parity rules that belong to a name. */
export class ReadOperations {
  readonly #reads = new Map<string, HttpRead[]>();
  readonly #rules = new Map<string, Rules>();
  readonly #names = new Map<string, Set<string>>();

  constructor(contracts: readonly AnyContract[] = []) {
    for (const contract of contracts) {
      for (const [name, query] of Object.entries<{ parity?: Rules }>(contract.queries))
        this.#rules.set(`${contract.name}.${name}`, joinRules(query.parity));
      this.#reads.set(contract.name, httpReadsOf(contract));
      for (const { operation, query } of this.#reads.get(contract.name)!)
        this.#rules.set(operation, joinRules(problemRules, contract.queries[query].parity));
    }
  }

  /**
   * The operation of a read over HTTP: `GET /v1/stock/{sku}`. HEAD counts as the GET it stands for. Without a contract
   * that knows the path, a name is made from it, segments that look like ids left out.
   */
  operationOf(context: string, _method: string, path: string): string {
    const segments = segmentsOf(path.split('?', 1)[0]!);
    const reads = this.#reads.get(context);
    if (!reads) return this.#named(context, segments);
    const fits = reads.filter((read) => matches(read.segments, segments));
    // `/v1/products/import` before `/v1/products/{id}`.
    return fits.sort((a, b) => parameters(a) - parameters(b))[0]?.operation ?? OTHER;
  }

  /** The parity rules of an operation; `own` (from a configuration file) comes on top. */
  rulesOf(operation: string, own?: Rules): Rules {
    const rules = this.#rules.get(operation) ?? problemRules;
    if (!own) return rules;
    let both = this.#joined.get(own)?.get(operation);
    if (!both) {
      both = joinRules(rules, own);
      const known = this.#joined.get(own) ?? new Map<string, Rules>();
      if (known.size < 1_000) this.#joined.set(own, known.set(operation, both));
    }
    return both;
  }

  /* The same object each time: what is made from rules is remembered by the object. */
  readonly #joined = new WeakMap<Rules, Map<string, Rules>>();

  #named(context: string, segments: readonly string[]): string {
    const name = `GET /${segments.map((part) => (looksLikeData(part) ? '{id}' : part)).join('/')}`;
    let names = this.#names.get(context);
    if (!names) this.#names.set(context, (names = new Set()));
    if (!names.has(name) && names.size >= MAX_NAMES) return OTHER;
    names.add(name);
    return name;
  }
}

const parameters = (read: HttpRead): number => read.segments.filter(isParameter).length;

const segmentsOf = (path: string): string[] => path.split('/').filter((part) => part !== '');

/** Is this request the one that `operation` means: `PUT /v1/cart/items/{sku}`? */
export function isOperation(operation: string, method: string, path: string): boolean {
  const [meant, pattern] = operation.split(' ', 2) as [string, string];
  return meant === method && matches(segmentsOf(pattern), segmentsOf(path));
}

const matches = (pattern: readonly string[], path: readonly string[]): boolean =>
  pattern.length === path.length && pattern.every((part, at) => isParameter(part) || part === path[at]);

/** Anything but a short word of letters (and `v1`): ids, codes, numbers, addresses. */
const looksLikeData = (segment: string): boolean =>
  !/^(v\d{1,2}|\.?[a-z]+([-_.][a-z]+){0,3})$/.test(segment) || segment.length > 30;

/** The reads that a contract names. */
export const httpReadsOf = (contract: AnyContract): HttpRead[] =>
  Object.entries<{ query: string; public?: boolean }>(contract.reads ?? {}).map(([operation, read]) => ({
    operation,
    query: read.query,
    public: read.public ?? false,
    segments: segmentsOf(operation.slice('GET '.length)),
  }));

/**
 * What has to be seen before a context may go on: every query that has examples, and every HTTP read that needs no
 * token. The probe can make all of them.
 */
export function requiredOperations(contract: AnyContract): string[] {
  const queries = Object.entries<{ examples?: unknown[]; drawn?: unknown }>(contract.queries);
  return [
    ...queries.filter(([, query]) => query.examples?.length || query.drawn).map(([name]) => `${contract.name}.${name}`),
    ...httpReadsOf(contract).flatMap((read) => (read.public ? [read.operation] : [])),
  ];
}
