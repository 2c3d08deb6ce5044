import type { Side } from '@banyan/kernel';
import type { Routing, Stage } from '@banyan/extraction';
import type { Rules } from '@banyan/extraction/parity';
import { RouteTable } from './paths.js';
import { type Upstream, Upstreams } from './upstreams.js';

/** One line of the table, as data. */
export interface RouteRule {
  /** Path prefix. */
  path: string;
  context: string;
  /** The writes below it that happen once per Idempotency-Key: `PUT /v1/cart/items/{sku}`. */
  keyed?: readonly string[];
  /** How the answers of the sides are compared. */
  parity?: Rules;
  /** Where the sides are, for whom no control plane tells it. */
  monolith?: readonly string[];
  service?: readonly string[];
  /** Without a control plane, or before it knows the context. Default `monolith`. */
  stage?: Stage;
}

/** What a router knows of a context just now. Never changed, only replaced. */
export interface ContextState {
  readonly context: string;
  readonly stage: Stage;
  readonly owner: Side;
  readonly epoch: number;
  readonly holding: boolean;
  readonly since: string;
  readonly monolith: Upstream;
  /** Undefined: only the monolith has it. */
  readonly service: Upstream | undefined;
}

export interface Route {
  readonly path: string;
  readonly context: string;
  readonly keyed: readonly string[];
  readonly parity: Rules | undefined;
}

/** Where states come from: `RoutingFollower`, or nothing. */
export interface RoutingSource {
  current(): Routing | undefined;
  onChange(listener: (routing: Routing) => void): () => void;
}

/**
 * Routes and contexts as they stand. Both can be replaced at any time: the routes when the file changes, the contexts
 * when the control plane speaks. Requests ask again after each wait.
 */
export class Directory {
  readonly #upstreams = new Upstreams();
  readonly #routing: RoutingSource | undefined;
  readonly #listeners = new Set<() => void>();
  readonly #unfollow: (() => void) | undefined;
  #rules: readonly RouteRule[] = [];
  #monolith: readonly string[];
  #table = new RouteTable<Route>([]);
  #contexts = new Map<string, ContextState>();
  #canaries: readonly ContextState[] = [];

  /** `monolith`: where it is as long as neither a rule nor the control plane says so. */
  constructor(rules: readonly RouteRule[], monolith: readonly string[], routing?: RoutingSource) {
    this.#monolith = monolith;
    this.#routing = routing;
    this.replace(rules, monolith);
    this.#unfollow = routing?.onChange(() => this.#rebuild());
  }

  replace(rules: readonly RouteRule[], monolith = this.#monolith): void {
    this.#rules = rules;
    this.#monolith = monolith;
    this.#table = new RouteTable(
      rules.map(({ path, context, keyed = [], parity }) => ({ path, context, keyed, parity })),
    );
    this.#rebuild();
  }

  match(path: string): Route | undefined {
    return this.#table.match(path);
  }

  /** Undefined for a context whose routes were taken out of the file while a request waited. */
  context(name: string): ContextState | undefined {
    return this.#contexts.get(name);
  }

  get contexts(): Iterable<ContextState> {
    return this.#contexts.values();
  }

  /** The contexts whose reads are divided just now. */
  get canaries(): readonly ContextState[] {
    return this.#canaries;
  }

  /** Called after each change. Returns how to take it back. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#unfollow?.();
    await this.#upstreams.destroy();
  }

  #rebuild(): void {
    const routing = this.#routing?.current();
    const contexts = new Map<string, ContextState>();
    for (const rule of this.#rules)
      if (!contexts.has(rule.context)) contexts.set(rule.context, this.#stateOf(rule, routing));
    // A canary is decided for every context at the edge, also for those that no path leads to.
    for (const context of Object.keys(routing?.contexts ?? {}))
      if (!contexts.has(context)) contexts.set(context, this.#stateOf({ path: '', context }, routing));
    this.#contexts = contexts;
    this.#canaries = [...contexts.values()].filter(({ stage, service }) => stage === 'canary' && service);
    this.#upstreams.keep(
      new Set([...contexts.values()].flatMap(({ monolith, service }) => (service ? [monolith, service] : [monolith]))),
    );
    for (const listener of this.#listeners) listener();
  }

  #stateOf(rule: RouteRule, routing: Routing | undefined): ContextState {
    const { context, stage = 'monolith' } = rule;
    const told = routing && Object.hasOwn(routing.contexts, context) ? routing.contexts[context] : undefined;
    const monolith = this.#upstreams.at(rule.monolith ?? routing?.monolith.http ?? this.#monolith);
    const services = rule.service ?? told?.service?.http;
    const service = services && this.#upstreams.at(services);
    if (told) {
      const { stage, owner, epoch, holding, since } = told;
      return { context, stage, owner, epoch, holding, since, monolith, service };
    }
    const before = this.#contexts.get(context);
    return {
      ...{ context, stage, monolith, service },
      owner: stage === 'live' ? 'service' : 'monolith',
      epoch: 0,
      holding: false,
      since: before?.stage === stage ? before.since : new Date().toISOString(),
    };
  }
}
