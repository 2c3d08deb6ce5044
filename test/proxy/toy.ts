import type { Routing } from '@banyan/extraction';
import type { Canary } from '@banyan/extraction/flags';
import { type MirrorOptions, ReadOperations } from '@banyan/extraction/parity';
import {
  AccessLog,
  Directory,
  type Limits,
  Proxy,
  type ProxyOptions,
  type RouteRule,
  type RoutingSource,
} from '@banyan/proxy';
import { onTestFinished } from 'vitest';

type ContextOf = Routing['contexts'][string];

/** What the control plane would push, in the hands of a test. */
export class ToyRouting implements RoutingSource {
  readonly #listeners = new Set<(routing: Routing) => void>();

  constructor(public state: Routing) {}

  static of(
    monolith: string | string[],
    contexts: Record<string, Partial<ContextOf> & { at?: string | string[] }> = {},
  ): ToyRouting {
    const rpc = [{ host: '127.0.0.1', port: 1 }];
    return new ToyRouting({
      revision: 1,
      monolith: { http: [monolith].flat(), rpc },
      contexts: Object.fromEntries(
        Object.entries(contexts).map(([name, { at, ...given }]) => [
          name,
          {
            ...{ stage: 'monolith', owner: 'monolith', epoch: 1, holding: false, since: '2026-01-01T00:00:00.000Z' },
            service: at === undefined ? null : { http: [at].flat(), rpc },
            ...given,
          },
        ]),
      ),
    });
  }

  current = (): Routing => this.state;

  onChange(listener: (routing: Routing) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  push(context: string, change: Partial<ContextOf>): void {
    const contexts = { ...this.state.contexts, [context]: { ...this.state.contexts[context]!, ...change } };
    this.state = { ...this.state, revision: this.state.revision + 1, contexts };
    for (const listener of this.#listeners) listener(this.state);
  }
}

/** Service for those whose session or user is named, the monolith for everybody else. */
export const canaryFor = (...who: string[]): Canary => ({
  isService: (_, { userId, sessionId }) => who.includes(userId ?? sessionId ?? ''),
  start: () => Promise.resolve(),
  stop: () => {},
});

export interface ToyProxy {
  proxy: Proxy;
  port: number;
  url: string;
  lines: string[];
}

/** A proxy with `/v1/stock` (inventory), `/v1/orders` (orders, with two writes that take keys), and the rest in the monolith; closed when the test ends. */
export async function startToy(
  routing: ToyRouting,
  options: {
    limits?: Partial<Limits>;
    canary?: Canary;
    rules?: RouteRule[];
    servedBy?: boolean;
    trustedProxies?: string[];
    mirror?: Partial<MirrorOptions>;
    shared?: ProxyOptions['shared'];
  } = {},
): Promise<ToyProxy> {
  const lines: string[] = [];
  const rules = options.rules ?? [
    { path: '/v1/stock', context: 'inventory' },
    { path: '/v1/orders', context: 'orders', keyed: ['POST /v1/orders', 'PUT /v1/orders/{id}/items/{sku}'] },
    { path: '/', context: 'rest' },
  ];
  const proxy = new Proxy({
    directory: new Directory(rules, routing.state.monolith.http, routing),
    canary: options.canary ?? canaryFor(),
    operations: new ReadOperations(),
    // Whoever takes his time is no fault, and no news, unless a test says so.
    limits: { drainMs: 50, candidateMs: 20_000, holdMs: 20_000, ...options.limits },
    access: new AccessLog('info', { write: (line: string) => void lines.push(line) }),
    ...(options.servedBy !== undefined && { servedBy: options.servedBy }),
    ...(options.trustedProxies && { trustedProxies: options.trustedProxies }),
    // Asking again would show up among what the upstreams were asked.
    mirror: options.mirror ?? { share: 0 },
    shared: options.shared,
  });
  await proxy.listen(0, '127.0.0.1');
  onTestFinished(() => proxy.close());
  return { proxy, port: proxy.port, url: `http://127.0.0.1:${proxy.port}`, lines };
}
