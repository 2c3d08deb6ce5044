import type { GateReading, Stage, Transition } from '@banyan/extraction';
import type { Divergence, Report } from '@banyan/extraction/parity';
import type { Database } from '@banyan/platform/database';
import type { AuditEntry } from './flags/flag-store.js';

/** What is remembered of one context. */
export interface ContextState {
  stage: Stage;
  /** When the stage was entered (ISO). */
  since: string;
  /** The last target that was asked for, by whom and why. */
  target: Stage;
  percent: number;
  actor: string;
  reason: string;
  /** Gates are skipped on the way to this stage. */
  forceTo: Stage | null;
  frozen: boolean;
  /** A service database, streams or processes may exist. */
  outside: boolean;
}

/** A stage that is entered, with what the gates read when the one before was left. */
export interface StageChange {
  context: string;
  from: Stage;
  to: Stage;
  at: string;
  actor: string;
  reason: string;
  gates: readonly GateReading[];
  divergences: readonly Divergence[];
  forced: boolean;
}

export interface EvidenceEntry {
  at: string;
  from: Stage;
  to: Stage;
  gates: GateReading[];
  forced: boolean;
}

export interface AuditRow extends AuditEntry {
  at: string;
}

interface StateRow extends Omit<ContextState, 'since' | 'forceTo'> {
  [column: string]: unknown;
  context: string;
  since: Date;
  force_to: Stage | null;
}

/** The rows of the control plane's own schema. */
export class ControlStore {
  constructor(private readonly db: Database) {}

  async states(): Promise<Map<string, ContextState>> {
    const { rows } = await this.db.query<StateRow>('select * from context_state');
    return new Map(
      rows.map(({ context, since, force_to: forceTo, ...row }) => [
        context,
        { ...row, since: since.toISOString(), forceTo },
      ]),
    );
  }

  async saveState(context: string, state: ContextState): Promise<void> {
    const { stage, since, target, percent, actor, reason, forceTo, frozen, outside } = state;
    await this.db.query(
      `insert into context_state (context, stage, since, target, percent, actor, reason, force_to, frozen, outside)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
       on conflict (context) do update set stage = $2, since = $3, target = $4, percent = $5, actor = $6, reason = $7,
         force_to = $8, frozen = $9, outside = $10`,
      [context, stage, since, target, percent, actor, reason, forceTo, frozen, outside],
    );
  }

  /** The stage, its transition, its evidence and its line in the audit log: all of them or none. */
  async enter(change: StageChange, state: ContextState): Promise<void> {
    const { context, from, to, at, actor, reason, gates, divergences, forced } = change;
    await this.db.transaction(undefined, async () => {
      await this.saveState(context, state);
      await this.db.query(
        'insert into transition (at, context, "from", "to", actor, reason) values ($1, $2, $3, $4, $5, $6)',
        [at, context, from, to, actor, reason],
      );
      await this.db.query(
        `insert into evidence (at, context, "from", "to", gates, divergences, forced) values ($1, $2, $3, $4, $5, $6, $7)`,
        [at, context, from, to, JSON.stringify(gates), JSON.stringify(divergences), forced],
      );
      await this.audit({ actor, action: 'stage', context, detail: { from, to, forced }, reason });
    });
  }

  async transitions(context: string): Promise<Transition[]> {
    const { rows } = await this.db.query<Omit<Transition, 'at'> & { at: Date }>(
      'select at, "from", "to", actor, reason from transition where context = $1 order by id desc limit 10',
      [context],
    );
    return rows.map((row) => ({ ...row, at: row.at.toISOString() }));
  }

  async evidence(context: string): Promise<EvidenceEntry[]> {
    const { rows } = await this.db.query<Omit<EvidenceEntry, 'at'> & { at: Date }>(
      'select at, "from", "to", gates, forced from evidence where context = $1 order by id desc limit 100',
      [context],
    );
    return rows.map((row) => ({ ...row, at: row.at.toISOString() }));
  }

  /** What was found in the stages that have been left since the context last was in the monolith. */
  async pastDivergences(context: string): Promise<Divergence[][]> {
    const { rows } = await this.db.query<{ divergences: Divergence[] }>(
      `select divergences from evidence where context = $1 and divergences <> '[]' and id > coalesce(
         (select max(id) from evidence where context = $1 and "from" = 'monolith'), 0) order by id`,
      [context],
    );
    return rows.map(({ divergences }) => divergences);
  }

  async audit({ actor, action, context, detail, reason }: AuditEntry): Promise<void> {
    await this.db.query(
      'insert into audit (at, actor, action, context, detail, reason) values (clock_timestamp(), $1, $2, $3, $4, $5)',
      [actor, action, context, JSON.stringify(detail ?? null), reason],
    );
  }

  /** The newest first; with `before`, the ones that are older than that line. */
  async auditLog(limit: number, before: number | undefined): Promise<(AuditRow & { id: number })[]> {
    const { rows } = await this.db.query<AuditEntry & { id: number; at: Date }>(
      `select id, at, actor, action, context, detail, reason from audit
       where $2::bigint is null or id < $2 order by id desc limit $1`,
      [limit, before ?? null],
    );
    return rows.map((row) => ({ ...row, at: row.at.toISOString() }));
  }

  async acknowledge(context: string, divergence: string, actor: string, reason: string): Promise<void> {
    await this.db.query(
      `insert into acknowledgement (context, divergence, at, actor, reason) values ($1, $2, clock_timestamp(), $3, $4)
       on conflict (context, divergence) do update set at = excluded.at, actor = excluded.actor, reason = excluded.reason`,
      [context, divergence, actor, reason],
    );
  }

  /** By context and divergence. */
  async acknowledgements(): Promise<Map<string, Record<string, { by: string; reason: string; at: string }>>> {
    const { rows } = await this.db.query<{
      context: string;
      divergence: string;
      at: Date;
      actor: string;
      reason: string;
    }>('select context, divergence, at, actor, reason from acknowledgement');
    const all = new Map<string, Record<string, { by: string; reason: string; at: string }>>();
    for (const { context, divergence, at, actor, reason } of rows)
      all.set(context, { ...all.get(context), [divergence]: { by: actor, reason, at: at.toISOString() } });
    return all;
  }

  async saveReport(report: Report): Promise<void> {
    await this.db.query(
      `insert into report (instance, received_at, content) values ($1, clock_timestamp(), $2)
       on conflict (instance) do update set received_at = excluded.received_at, content = excluded.content`,
      [report.instance, JSON.stringify(report)],
    );
  }

  async reports(): Promise<Report[]> {
    await this.db.query(`delete from report where received_at < now() - interval '30 days'`);
    const { rows } = await this.db.query<{ content: Report }>('select content from report');
    return rows.map(({ content }) => content);
  }

  /** Revisions from here on are the caller's: this many of them. */
  async takeRevisions(count: number): Promise<{ from: number; contexts: Record<string, unknown> }> {
    const { rows } = await this.db.query<{ from: number; contexts: Record<string, unknown> }>(
      'update routing set revision = revision + $1 returning revision - $1 + 1 as "from", contexts',
      [count],
    );
    return rows[0]!;
  }

  async saveRouting(contexts: Record<string, unknown>): Promise<void> {
    await this.db.query('update routing set contexts = $1', [JSON.stringify(contexts)]);
  }
}
