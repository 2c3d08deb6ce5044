import { setTimeout as sleep } from 'node:timers/promises';
import { canaryFlag, FlagClient, type FlagServer, targetFlag } from '@banyan/extraction/flags';
import type { Stage } from '@banyan/extraction';
import type { Database } from '@banyan/platform/database';
import { fail } from '@banyan/platform/http';
import { type Audit, FlagStore, type Target, type TargetChange } from './flag-store.js';
import { KnownTargets } from './known-targets.js';
import { readingOf } from './reading.js';
import { UnleashAdmin } from './unleash-admin.js';

export interface UnleashFlagsOptions {
  contexts: readonly string[];
  /** The database of schema `control`: the last known targets are kept there. */
  database: Database;
  audit: Audit;
  server: FlagServer & { environment?: string };
  /** Undefined: flags are only read. */
  adminToken: string | undefined;
  project: string;
  environment: string;
  log: (message: string) => void;
}

/* Unleash looks for changes once a second, and so do we. */
const VISIBLE_WITHIN_MS = 5_000;
const FIRST_PERCENT = 10;

/** The flags of a real Unleash server: read as every router reads them, written by its admin API. */
export class UnleashFlags extends FlagStore {
  readonly #known: KnownTargets;
  readonly #client: FlagClient;
  readonly #admin: UnleashAdmin | undefined;
  readonly #setting = new Set<string>();
  #reading: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #created = false;

  constructor(private readonly options: UnleashFlagsOptions) {
    super();
    const { server, adminToken, project, environment } = options;
    this.#known = new KnownTargets(options.database, options.log);
    // Problems are told once, with what holds instead, when the flags are taken over.
    this.#client = FlagClient.of({ ...server, log: undefined });
    if (adminToken) this.#admin = new UnleashAdmin({ url: server.urls[0]!, token: adminToken, project, environment });
  }

  targets(): Readonly<Record<string, Target>> {
    return this.#known.targets();
  }

  problems(): Readonly<Record<string, string>> {
    return this.#known.problems();
  }

  onChange(fn: () => void): () => void {
    return this.#known.onChange(fn);
  }

  async start(): Promise<void> {
    await this.#known.load();
    this.#client.onChange(() => void this.#read());
    await this.#client.start();
    await this.#read();
    // That the server is away, or back, is no change of a flag.
    this.#timer = setInterval(() => void this.#read(), this.options.server.refreshMs).unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#client.stop();
    await this.#reading;
  }

  async setTarget(context: string, { stage, percent, actor, reason }: TargetChange): Promise<void> {
    const [target, canary] = [targetFlag(context), canaryFlag(context)];
    if (!this.options.contexts.includes(context)) throw fail('FLAG_UNKNOWN', `There is no flag ${target}`);
    if (!this.#admin)
      throw fail(
        'FLAGS_READ_ONLY',
        `The flags are kept by ${this.#host()}: set ${this.#told(context, stage, percent)} there, or give the control plane UNLEASH_ADMIN_TOKEN`,
      );
    const before = this.targets()[context];
    this.#setting.add(context);
    try {
      await this.#create(this.#admin);
      if (percent !== undefined) await this.#admin.rollOut(canary, percent);
      await this.#admin.ask(target, stage);
      const detail = { stage, ...(percent !== undefined && { percent }), before };
      await this.options.audit({ actor, action: 'target', context, detail, reason });
      for (const deadline = Date.now() + VISIBLE_WITHIN_MS; ;) {
        this.#client.refresh();
        await sleep(100);
        await this.#read();
        const now = this.targets()[context];
        if (now?.stage === stage && (percent === undefined || now.percent === percent)) return;
        if (Date.now() > deadline)
          throw fail(
            'UPSTREAM_UNAVAILABLE',
            `${this.#host()} took the change but does not show it: ${this.problems()[context] ?? `check the strategies of ${target} and ${canary} there`}`,
          );
      }
    } finally {
      this.#setting.delete(context);
    }
  }

  /** One reading after the other. Never rejects. */
  #read(): Promise<void> {
    this.#reading = this.#reading
      .then(async () => {
        const readings = this.options.contexts.map((context) => {
          const [target, canary] = [targetFlag(context), canaryFlag(context)];
          const reading = readingOf(context, this.#client.definition(target), this.#client.definition(canary));
          const problem = this.#client.problem(target) ?? this.#client.problem(canary) ?? reading.problem;
          return [context, { ...reading, problem }] as const;
        });
        await this.#known.learn(Object.fromEntries(readings), (context, before) => this.#auditChange(context, before));
        if (!this.#created && this.#client.answered()) await this.#createMissing();
      })
      .catch((error: unknown) =>
        this.options.log(`The flags of ${this.#host()} could not be taken over: ${String(error)}`),
      );
    return this.#reading;
  }

  /** Somebody has changed it in Unleash; who, stands in its own event log. */
  async #auditChange(context: string, before: Partial<Target> | null): Promise<void> {
    const now = this.targets()[context];
    if (now === undefined || this.#setting.has(context)) return;
    const detail = { ...now, before };
    await this.options.audit({ actor: 'unleash', action: 'target', context, detail, reason: null });
  }

  async #createMissing(): Promise<void> {
    this.#created = true;
    if (this.#admin) {
      try {
        await this.#create(this.#admin);
      } catch (error) {
        this.options.log(`Flags that are missing in ${this.#host()} could not be created: ${(error as Error).message}`);
      }
      return;
    }
    const names = this.options.contexts.flatMap((each) => [targetFlag(each), canaryFlag(each)]);
    const missing = names.filter((name) => this.#client.definition(name) === undefined);
    if (missing.length > 0)
      this.options.log(
        `Flags are missing in ${this.#host()}: create ${missing.join(', ')} in the project ${this.options.project}, ` +
          'the ones that end in .canary with a gradual rollout, or set UNLEASH_ADMIN_TOKEN',
      );
  }

  /** New flags ask for what holds now: a flag that is new, and so off, must not take a context back. */
  async #create(admin: UnleashAdmin): Promise<void> {
    const existing = await admin.flags();
    for (const context of this.options.contexts) {
      const [target, canary] = [targetFlag(context), canaryFlag(context)];
      const known = this.targets()[context];
      if (!existing.has(canary))
        await admin.create(canary, `Share of the reads of ${context} that its service gets while in canary`);
      if (!existing.get(canary)?.hasStrategies) await admin.rollOut(canary, known?.percent ?? FIRST_PERCENT);
      if (existing.has(target)) continue;
      await admin.create(
        target,
        `Where ${context} runs: off is the monolith; replicate, shadow, canary, live as variants`,
      );
      if (known && known.stage !== 'monolith') await admin.ask(target, known.stage);
    }
  }

  #told(context: string, stage: Stage, percent: number | undefined): string {
    const target = targetFlag(context);
    const state = stage === 'monolith' ? `${target} off` : `${target} on with the strategy variant "${stage}"`;
    return percent === undefined ? state : `${state} and the rollout of ${canaryFlag(context)} to ${percent} %`;
  }

  #host(): string {
    return `Unleash (${new URL(this.options.server.urls[0]!).host})`;
  }
}
