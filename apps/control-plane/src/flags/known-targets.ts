import { EventEmitter } from 'node:events';
import { Stage } from '@banyan/extraction';
import type { Database } from '@banyan/platform/database';
import type { Target } from './flag-store.js';
import type { Reading } from './reading.js';

const CHANGE = 'change';

/** The last known targets, in memory and in the control database, so that they hold across a restart as well. */
export class KnownTargets {
  #known = new Map<string, Partial<Target>>();
  #saved = new Map<string, string>();
  #problems: Readonly<Record<string, string>> = {};
  #unsaved = false;
  readonly #events = new EventEmitter();

  constructor(
    private readonly database: Database,
    private readonly log: (message: string) => void,
  ) {
    this.#events.setMaxListeners(0);
  }

  async load(): Promise<void> {
    const { rows } = await this.database.query<{ context: string; stage: string | null; percent: number | null }>(
      'select context, stage, percent from flag_target',
    );
    for (const { context, stage, percent } of rows) {
      const known: Partial<Target> = { stage: Stage.safeParse(stage).data, percent: percent ?? undefined };
      this.#known.set(context, known);
      this.#saved.set(context, JSON.stringify(known));
    }
  }

  targets(): Readonly<Record<string, Target>> {
    const known = [...this.#known].flatMap(([context, { stage, percent }]) =>
      stage ? [[context, { stage, percent: percent ?? 0 }] as const] : [],
    );
    return Object.fromEntries(known);
  }

  problems(): Readonly<Record<string, string>> {
    return this.#problems;
  }

  onChange(fn: () => void): () => void {
    this.#events.on(CHANGE, fn);
    return () => void this.#events.off(CHANGE, fn);
  }

  /**
   * Takes over what the flags say, as far as they say something. `saved` is called for each target that is another one
   * than before, in the transaction that keeps it.
   */
  async learn(readings: Readonly<Record<string, Reading>>, saved: Saved = async () => {}): Promise<void> {
    let news = false;
    const problems: Record<string, string> = {};
    for (const [context, { stage, percent, problem }] of Object.entries(readings)) {
      if (problem) problems[context] = `${problem}. Until then its last known target holds`;
      const before = this.#known.get(context) ?? {};
      const now = { stage: stage ?? before.stage, percent: percent ?? before.percent };
      if (now.stage === before.stage && now.percent === before.percent) continue;
      this.#known.set(context, now);
      news = true;
    }
    const told = new Set(Object.values(this.#problems));
    for (const problem of new Set(Object.values(problems))) if (!told.has(problem)) this.log(problem);
    news ||= JSON.stringify(this.#problems) !== JSON.stringify(problems);
    this.#problems = problems;
    await this.#save(saved);
    if (news) this.#events.emit(CHANGE);
  }

  /** What cannot be saved now is saved with the next reading: a database that is away must not keep a target from holding. */
  async #save(saved: Saved): Promise<void> {
    for (const [context, known] of this.#known) {
      const [text, before] = [JSON.stringify(known), this.#saved.get(context)];
      if (before === text) continue;
      try {
        await this.database.transaction(undefined, async () => {
          const { rowCount } = await this.database.query(
            `insert into flag_target as kept (context, stage, percent, changed_at) values ($1, $2, $3, now())
               on conflict (context) do update set stage = excluded.stage, percent = excluded.percent, changed_at = now()
               where (kept.stage, kept.percent) is distinct from (excluded.stage, excluded.percent)`,
            [context, known.stage ?? null, known.percent ?? null],
          );
          // Else another instance of the control plane has seen it first.
          if (rowCount === 1)
            await saved(context, before === undefined ? null : (JSON.parse(before) as Partial<Target>));
        });
        this.#saved.set(context, text);
        this.#unsaved = false;
      } catch (error) {
        if (!this.#unsaved) this.log(`The targets cannot be kept now: ${(error as Error).message}`);
        this.#unsaved = true;
        return;
      }
    }
  }
}

type Saved = (context: string, before: Partial<Target> | null) => Promise<void>;
