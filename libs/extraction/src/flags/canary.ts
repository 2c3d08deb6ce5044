import { join } from 'node:path';
import { type Config, keptSecret } from '@banyan/platform/config';
import { FlagClient } from './flag-client.js';
import type { FlagServer } from './last-known-flags.js';
import { Flag } from './flag.js';
import { FlagRepository } from './flag-repository.js';
import { canaryFlag } from './names.js';

/** Who is asking, as far as it is known. */
export interface Caller {
  userId?: string;
  sessionId?: string;
}

/** Which side serves a caller's reads of a context that is in canary. */
export interface Canary {
  /**
   * True: the service. The same caller gets the same answer until the percentage changes, and a higher percentage only
   * adds callers. Sticks to the user, else the session; who has neither stays with the monolith. Never throws.
   */
  isService(context: string, caller: Caller): boolean;
  /** Never rejects; waits for the flag server a second at most. */
  start(): Promise<void>;
  stop(): void;
}

abstract class EvaluatedCanary implements Canary {
  readonly #names = new Map<string, string>();

  constructor(protected readonly client: FlagClient) {}

  start(): Promise<void> {
    return this.client.start();
  }

  stop(): void {
    this.client.stop();
  }

  isService(context: string, { userId, sessionId }: Caller): boolean {
    // Unleash draws lots for who has neither, anew with each request.
    if (!userId && !sessionId) return false;
    let name = this.#names.get(context);
    if (name === undefined) this.#names.set(context, (name = canaryFlag(context)));
    return this.client.isEnabled(name, { userId: userId || undefined, sessionId: sessionId || undefined });
  }
}

/** The canary flags of a flag server; the last known ones hold, also across a restart. */
export class CanaryFlags extends EvaluatedCanary {
  constructor(server: FlagServer & { environment?: string }) {
    super(FlagClient.of(server));
  }
}

class StaticCanary extends EvaluatedCanary {
  constructor(percentByContext: Readonly<Record<string, number>>) {
    const flags = Object.entries(percentByContext).map(([context, percent]) =>
      Flag.parse({
        name: canaryFlag(context),
        enabled: true,
        strategies: [gradualRollout(canaryFlag(context), percent)],
      }),
    );
    super(new FlagClient(new FlagRepository(flags), { appName: 'banyan' }));
    void this.start();
  }
}

/** Fixed percentages, for a router without a flag server: a caller is placed as the flag server would place them. */
export const staticCanary = (percentByContext: Readonly<Record<string, number>>): Canary =>
  new StaticCanary(percentByContext);

/** Unleash's gradual rollout of a flag to `percent` of the callers. */
export const gradualRollout = (flag: string, percent: number) => ({
  name: 'flexibleRollout',
  parameters: { rollout: String(percent), stickiness: 'default', groupId: flag },
  constraints: [],
});

/**
 * The canary flags that a process of this configuration follows: a real Unleash server's, else the control plane's own;
 * with neither nothing is in canary. `role` names the process: `proxy`, `monolith`, `inventory-service`.
 */
export function canaryFlagsFrom(config: Config, role: string, log?: (message: string) => void): Canary {
  const server = flagServerFrom(config, role, log);
  return server ? new CanaryFlags(server) : staticCanary({});
}

/** Where a process of this configuration asks for flags; undefined: nowhere. */
export function flagServerFrom(
  config: Config,
  role: string,
  log?: (message: string) => void,
): (FlagServer & { environment: string }) | undefined {
  const { flags, extraction, stateDir } = config;
  const common = {
    appName: `banyan-${role}`,
    refreshMs: flags.refreshMs,
    backupFile: join(stateDir, 'flags', `${role}.json`),
    environment: flags.environment,
    log,
  };
  if (flags.url) return { ...common, urls: [unleashApi(flags.url)], apiToken: flags.apiToken ?? '' };
  if (!extraction.controlUrls) return undefined;
  const apiToken = extraction.clientToken ?? keptSecret(stateDir, 'client-token');
  return { ...common, urls: extraction.controlUrls.map(unleashApi), apiToken };
}

/** People give Unleash's address with and without `/api`. */
export const unleashApi = (url: string): string => `${url.replace(/\/+$/, '').replace(/\/api$/, '')}/api/`;
