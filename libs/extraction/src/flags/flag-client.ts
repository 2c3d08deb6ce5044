import { Unleash, UnleashEvents } from 'unleash-client';
import type { Flag } from './flag.js';
import type { FlagRepository } from './flag-repository.js';
import { type FlagServer, LastKnownFlags } from './last-known-flags.js';

/** unleash-client on flags of ours: it evaluates, registers the app and reports how often a flag was asked for. */
export class FlagClient {
  readonly #unleash: Unleash;

  static of(server: FlagServer & { environment?: string }): FlagClient {
    return new FlagClient(new LastKnownFlags(server), server);
  }

  constructor(
    private readonly repository: FlagRepository,
    options: { appName: string } & Partial<FlagServer & { environment: string }>,
  ) {
    this.#unleash = new Unleash({
      repository,
      appName: options.appName,
      environment: options.environment,
      url: options.urls?.[0] ?? 'http://none.invalid/',
      customHeaders: { authorization: options.apiToken ?? '' },
      disableMetrics: options.urls === undefined,
      timeout: options.timeoutMs ?? 2_000,
      skipInstanceCountWarning: true,
      disableAutoStart: true,
    });
    // Without a listener unleash-client writes to the console. What matters the repository tells by itself.
    this.#unleash.on(UnleashEvents.Error, () => {});
  }

  /** Never rejects, and takes a second at most. */
  async start(): Promise<void> {
    await this.#unleash.start().catch(() => {});
  }

  stop(): void {
    this.#unleash.destroy();
  }

  /** Is the flag on for this caller? A flag that was never known, or that cannot be evaluated, is off. */
  isEnabled(name: string, caller: { userId?: string; sessionId?: string }): boolean {
    try {
      return this.#unleash.isEnabled(name, caller, false);
    } catch {
      return false;
    }
  }

  /** The flag as it is defined. */
  definition(name: string): Flag | undefined {
    return this.#unleash.getFeatureToggleDefinition(name) as Flag | undefined;
  }

  /** Why the last known state of a flag holds; undefined when it is the server's own. */
  problem(name: string): string | undefined {
    return this.repository instanceof LastKnownFlags ? this.repository.problem(name) : undefined;
  }

  /** Has the server given a usable answer since the start? */
  answered(): boolean {
    return this.repository instanceof LastKnownFlags && this.repository.answered;
  }

  /** Asks the server now. */
  refresh(): void {
    if (this.repository instanceof LastKnownFlags) this.repository.refresh();
  }

  /** Calls `fn` after each answer of the server that is new. */
  onChange(fn: () => void): void {
    this.#unleash.on(UnleashEvents.Changed, fn);
  }
}
