import { createHash } from 'node:crypto';
import { newId } from '@banyan/kernel';
import type { Stage } from '@banyan/extraction';
import { FLAG_PREFIX, Flag, canaryFlag, gradualRollout, targetFlag } from '@banyan/extraction/flags';
import type { Database } from '@banyan/platform/database';
import { fail } from '@banyan/platform/http';
import { type Audit, FlagStore, type Target, type TargetChange } from './flag-store.js';
import { KnownTargets } from './known-targets.js';
import { readingOf, strategyFor } from './reading.js';
import { type StoredStrategy, type Variant, strategyOf } from './unleash-json.js';

/** A flag as it is kept. */
export interface StoredFlag {
  name: string;
  enabled: boolean;
  strategies: StoredStrategy[];
  variants: Variant[];
  createdAt: Date;
}

export interface OwnFlagsOptions {
  contexts: readonly string[];
  /** The database of schema `control`. */
  database: Database;
  audit: Audit;
  /** How often to look for what another instance of the control plane changed. */
  refreshMs: number;
  log: (message: string) => void;
}

/* Enough to see something, and few enough to harm little. */
const FIRST_PERCENT = 10;

interface Row {
  name: string;
  enabled: boolean;
  strategies: StoredStrategy[];
  variants: Variant[];
  created_at: Date;
}

/** The flags in the control plane's own tables: two for each context, there from the start. */
export class OwnFlags extends FlagStore {
  readonly #known: KnownTargets;
  #flags: ReadonlyMap<string, StoredFlag> = new Map();
  #reading: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #away = false;

  constructor(private readonly options: OwnFlagsOptions) {
    super();
    this.#known = new KnownTargets(options.database, options.log);
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
    for (const context of this.options.contexts) {
      const canary = canaryFlag(context);
      await this.#insert(targetFlag(context), false, []);
      await this.#insert(canary, true, [
        strategyOf(canary, newId(), 'flexibleRollout', gradualRollout(canary, FIRST_PERCENT), 0),
      ]);
    }
    await this.#known.load();
    await this.#reread();
    this.#timer = setInterval(() => void this.#lookAgain(), this.options.refreshMs).unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#reading.catch(() => {});
  }

  async setTarget(context: string, { stage, percent, actor, reason }: TargetChange): Promise<void> {
    const before = this.targets()[context];
    await this.options.database.transaction(undefined, async () => {
      if (percent !== undefined) await this.#update(canaryFlag(context), (flag) => withPercent(flag, percent));
      await this.#update(targetFlag(context), (flag) => withStage(flag, stage));
      const detail = { stage, ...(percent !== undefined && { percent }), before };
      await this.options.audit({ actor, action: 'target', context, detail, reason });
    });
    await this.#reread();
  }

  /** Every flag, by name. */
  all(): StoredFlag[] {
    return [...this.#flags.values()].sort((a, b) => a.name.localeCompare(b.name));
  }

  /** Throws FLAG_UNKNOWN. */
  one(name: string): StoredFlag {
    return this.#flags.get(name) ?? unknown(name);
  }

  /** Changes a flag, audits what was done, and resolves when `targets()` shows it. Throws FLAG_UNKNOWN, and what `fn` throws. */
  async change(name: string, action: string, actor: string, fn: (flag: StoredFlag) => StoredFlag): Promise<StoredFlag> {
    const changed = await this.options.database.transaction(undefined, async () => {
      const { before, after } = await this.#update(name, fn);
      await this.options.audit({
        actor,
        action,
        context: contextOf(name),
        detail: { flag: name, before: told(before), after: told(after) },
        reason: null,
      });
      return after;
    });
    await this.#reread();
    return changed;
  }

  /** What Unleash's client API answers, and the tag of exactly this answer. */
  forClients(prefix: string): { etag: string; features: unknown[] } {
    const features = this.all()
      .filter(({ name }) => name.startsWith(prefix))
      .map(forClient);
    const etag = `"${createHash('sha256').update(JSON.stringify(features)).digest('base64url').slice(0, 22)}"`;
    return { etag, features };
  }

  async #insert(name: string, enabled: boolean, strategies: StoredStrategy[]): Promise<void> {
    await this.options.database.query(
      `insert into flag (name, enabled, strategies, variants, created_at, changed_at)
       values ($1, $2, $3, '[]', now(), now()) on conflict (name) do nothing`,
      [name, enabled, JSON.stringify(strategies)],
    );
  }

  async #update(
    name: string,
    fn: (flag: StoredFlag) => StoredFlag,
  ): Promise<{ before: StoredFlag; after: StoredFlag }> {
    const { database } = this.options;
    const { rows } = await database.query<Row>(`${SELECT} where name = $1 for update`, [name]);
    const before = rows[0] ? stored(rows[0]) : unknown(name);
    const after = fn(before);
    await database.query(
      'update flag set enabled = $2, strategies = $3, variants = $4, changed_at = now() where name = $1',
      [name, after.enabled, JSON.stringify(after.strategies), JSON.stringify(after.variants)],
    );
    return { before, after };
  }

  /** One reading after the other, so that an older one never comes last. */
  #reread(): Promise<void> {
    const next = this.#reading
      .catch(() => {})
      .then(async () => {
        const { rows } = await this.options.database.query<Row>(SELECT);
        this.#flags = new Map(rows.map((row) => [row.name, stored(row)]));
        const flag = (name: string) => {
          const found = this.#flags.get(name);
          return found && Flag.parse(forClient(found));
        };
        await this.#known.learn(
          Object.fromEntries(
            this.options.contexts.map((each) => [
              each,
              readingOf(each, flag(targetFlag(each)), flag(canaryFlag(each))),
            ]),
          ),
        );
      });
    this.#reading = next;
    return next;
  }

  async #lookAgain(): Promise<void> {
    try {
      await this.#reread();
      this.#away = false;
    } catch (error) {
      if (!this.#away)
        this.options.log(`The flags cannot be read, the last known ones hold: ${(error as Error).message}`);
      this.#away = true;
    }
  }
}

const SELECT = 'select name, enabled, strategies, variants, created_at from flag';

const stored = ({ created_at, ...row }: Row): StoredFlag => ({ ...row, createdAt: created_at });

const told = ({ enabled, strategies, variants }: StoredFlag) => ({ enabled, strategies, variants });

function unknown(name: string): never {
  throw fail(
    'FLAG_UNKNOWN',
    `There is no flag ${name.slice(0, 100)}; GET /api/admin/projects/…/features lists what there is`,
  );
}

/** `extraction.inventory.canary` -> `inventory`. */
const contextOf = (flag: string): string => flag.slice(FLAG_PREFIX.length).split('.')[0] as string;

/** As Unleash's clients get it: without what is disabled; a flag with nothing but disabled strategies is off. */
function forClient({ name, enabled, strategies, variants }: StoredFlag) {
  const active = strategies.filter(({ disabled }) => !disabled);
  return {
    name,
    type: 'operational',
    enabled: enabled && (strategies.length === 0 || active.length > 0),
    project: 'default',
    stale: false,
    impressionData: false,
    strategies: active.map(({ name, parameters, constraints, variants }) => ({
      name,
      parameters,
      constraints,
      variants,
    })),
    variants,
  };
}

function withStage(flag: StoredFlag, stage: Stage): StoredFlag {
  if (stage === 'monolith') return { ...flag, enabled: false };
  const id = flag.strategies[0]?.id ?? newId();
  return {
    ...flag,
    enabled: true,
    strategies: [strategyOf(flag.name, id, 'flexibleRollout', strategyFor(flag.name, stage), 0)],
  };
}

function withPercent(flag: StoredFlag, percent: number): StoredFlag {
  const shares = flag.strategies.filter(
    ({ name, constraints }) => name === 'flexibleRollout' && constraints.length === 0,
  );
  const others = flag.strategies.filter((each) => !shares.includes(each) && each.constraints.length > 0);
  const { parameters } = gradualRollout(flag.name, percent);
  const share = shares[0]
    ? { ...shares[0], disabled: false, parameters: { ...shares[0].parameters, rollout: parameters.rollout } }
    : strategyOf(flag.name, newId(), 'flexibleRollout', { parameters }, 0);
  return { ...flag, enabled: true, strategies: [share, ...others] };
}
