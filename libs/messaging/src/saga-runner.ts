import { Logger } from '@nestjs/common';
import { DomainError, newId, reasonOf, system } from '@banyan/kernel';
import { currentTraceparent, metrics, withRemoteParent, withSpan } from '@banyan/platform/telemetry';
import {
  type SagaDefinition,
  type SagaInput,
  type SagaState,
  type SagaStep,
  formatState,
  isFinal,
  parseState,
  transition,
} from './saga.js';
import { newScope, outOfScope, runInScope } from './scope.js';
import { hasMoved } from './failures.js';
import type { Cause, SagaRow, UnitOfWork, WritingContext } from './unit-of-work.js';

type Data = Record<string, unknown>;
export type Signal = { done: Data } | { refused: string };

/** A saga as it was read: the columns that a transition changes, and those that it only looks at. */
interface Row extends SagaRow {
  [column: string]: unknown;
  signals: Record<string, Signal>;
}

type Move = [input: SagaInput, facts: Data, reason: string | null];

export interface SagaOptions {
  /** How long a claimed saga is left to the runner that claimed it, ms. Longer than the longest step call. */
  leaseMs: number;
  sweepMs: number;
  /** First back-off of a step that could not be done just now, ms; doubles up to `backoffCapMs`, with jitter. */
  backoffMs: number;
  backoffCapMs: number;
}

export const sagaDefaults: SagaOptions = { leaseMs: 10_000, sweepMs: 1_000, backoffMs: 100, backoffCapMs: 30_000 };

const columns = 'type, id, state, data, signals, reason, attempts, due_at, deadline_at, updated_at';

const hop = (fence: string) => `
  update saga set state = $4, data = $5, reason = null, attempts = 1, due_at = $6, deadline_at = $7, updated_at = $8, last_error = null
  from ${fence} where type = $1 and id = $2 and state = $3`;

/* What the former owner's runners had leased when they lost the context: none of their steps can be kept any more. */
const takeOver = (fence: string) => `
  update saga set due_at = now() from ${fence}
  where due_at > now() and due_at <= now() + $1 * interval '1 ms' and state not like '%:waiting'`;

const keyOf = ({ type, id }: { type: string; id: string }): string => `${type}/${id}`;

const changing = ({ type, id, state, data, reason, attempts, due_at, deadline_at, updated_at }: Row): SagaRow => ({
  type,
  id,
  state,
  data,
  reason,
  attempts,
  due_at,
  deadline_at,
  updated_at,
});

/** Drives the sagas of one context. The row is the truth; a runner that dies leaves it to the next sweep. */
export class SagaRunner {
  readonly #definitions = new Map<string, SagaDefinition<Data>>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #log: Logger;
  #stopped = true;
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<void> | undefined;
  /** Whether this process had the context when it was last asked; undefined before that. */
  #active: boolean | undefined;

  constructor(
    readonly unit: UnitOfWork,
    private readonly options: SagaOptions = sagaDefaults,
    private readonly active: () => boolean = () => true,
  ) {
    this.#log = new Logger(`saga.${unit.context}`);
  }

  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  add(definition: SagaDefinition<any>): void {
    this.#definitions.set(definition.name, definition);
  }

  start(): void {
    this.#stopped = false;
    metrics.watchSagas(this.unit.context, async () => {
      const { rows } = await this.unit.db.query<{ saga: string; state: string; count: number }>(
        `select type as saga, state, count(*) as count from saga
         where state not in ('completed', 'compensated', 'cancelled') group by type, state`,
      );
      return rows;
    });
    this.#sweepLater(0);
  }

  /** Lets the steps that are running come to their end. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#sweeping;
    await Promise.all(this.#running.values());
  }

  /** Begins a saga in the caller's transaction; it runs as soon as that has committed. `id` is unique per saga type. */
  begin(name: string, id: string, data: Data, ctx: WritingContext): void {
    const definition = this.#definition(name);
    const first = definition.steps[0]!;
    const row: Row = {
      type: name,
      id,
      state: first.name,
      data,
      signals: {},
      reason: null,
      attempts: 1,
      // Leased to this process from the start; if it dies, the sweep of another one takes over.
      due_at: new Date(ctx.now.getTime() + this.options.leaseMs),
      deadline_at: deadline(first, ctx.now),
      updated_at: ctx.now,
    };
    ctx.sagas.set(keyOf(row), changing(row));
    const traceparent = currentTraceparent();
    ctx.afterCommit(() => this.#run(definition, row, traceparent));
  }

  /** What a waiting step waits for. Kept when the saga is not there yet; ignored when it has gone past. */
  async signal(name: string, id: string, step: string, signal: Signal, ctx: WritingContext): Promise<void> {
    const definition = this.#definition(name);
    const row = await this.#lock(name, id, ctx);
    if (!row) return;
    const state = parseState(row.state);
    if (isFinal(state)) return;
    if (state.at === 'waiting' && state.step === step) {
      const traceparent = currentTraceparent();
      const moved = await this.#move(definition, row, ...fromSignal(signal), ctx);
      return ctx.afterCommit(() => this.#run(definition, moved, traceparent));
    }
    row.signals = { ...row.signals, [step]: signal };
    await ctx.tx.query('update saga set signals = $3, updated_at = $4 where type = $1 and id = $2', [
      name,
      id,
      JSON.stringify(row.signals),
      ctx.now,
    ]);
  }

  /** Ends a saga where it stands, without compensation: somebody else undoes what it did. */
  async cancel(name: string, id: string, ctx: WritingContext): Promise<void> {
    const definition = this.#definition(name);
    const row = await this.#lock(name, id, ctx);
    const state = row && parseState(row.state);
    if (!row || !state || isFinal(state) || state.at === 'undo') return;
    await this.#move(definition, row, 'cancelled', {}, null, ctx);
  }

  async #lock(name: string, id: string, ctx: WritingContext): Promise<Row | undefined> {
    const { rows } = await ctx.tx.query<Row>(`select ${columns} from saga where type = $1 and id = $2 for update`, [
      name,
      id,
    ]);
    // What this very transaction has made of it is written at its end only.
    return rows[0] && { ...rows[0], ...ctx.sagas.get(keyOf(rows[0])) };
  }

  /** There may be something to do, such as a context that has come here. */
  wake(): void {
    if (!this.#sweeping) this.#sweepLater(0);
  }

  #sweepLater(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#sweeping = this.#sweep().finally(() => {
        this.#sweeping = undefined;
        this.#sweepLater(this.options.sweepMs * (0.75 + Math.random() / 2));
      });
    }, ms);
  }

  async #sweep(): Promise<void> {
    const [before, now] = [this.#active, this.active()];
    if (!now) this.#active = false;
    if (!now || this.#definitions.size === 0) return;
    try {
      if (before === false) await this.unit.statement(takeOver, [this.options.leaseMs]);
      this.#active = true;
      const { rows } = await this.unit.statement<Row>(
        (fence) => `
          with due (due_type, due_id) as (
            select type, id from saga where due_at <= now() and type = any($2) order by due_at limit 50 for update skip locked
          )
          update saga set due_at = now() + $1 * interval '1 ms', attempts = attempts + 1
          from due, ${fence} where type = due_type and id = due_id returning ${columns}`,
        [this.options.leaseMs, [...this.#definitions.keys()]],
      );
      // One whose step is still running here has just had its lease renewed; that is all it needs.
      for (const row of rows) if (!this.#running.has(keyOf(row))) this.#run(this.#definition(row.type), row, undefined);
    } catch (error) {
      if (!hasMoved(error)) this.#log.warn({ msg: 'sagas not reachable, trying again', err: error });
    }
  }

  #run(definition: SagaDefinition<Data>, row: Row, traceparent: string | undefined): void {
    const key = keyOf(row);
    if (this.#stopped) return;
    const before = this.#running.get(key);
    const work = Promise.resolve(before)
      .then(() =>
        outOfScope(() =>
          withRemoteParent(traceparent, `saga ${row.type}`, { 'banyan.saga.id': row.id }, () =>
            this.#drive(definition, row),
          ),
        ),
      )
      .catch((error: unknown) => {
        if (hasMoved(error)) this.#log.log({ msg: `${key} goes on where ${this.unit.context} is owned now` });
        else this.#log.error({ msg: `${key} stopped in ${row.state}`, err: error });
      })
      .finally(() => {
        if (this.#running.get(key) === work) this.#running.delete(key);
      });
    this.#running.set(key, work);
  }

  /** Runs step after step until the saga waits, ends, or has to try again later. */
  async #drive(definition: SagaDefinition<Data>, row: Row): Promise<void> {
    for (;;) {
      const state = parseState(row.state);
      if (isFinal(state) || this.#stopped) return;
      const late = row.deadline_at !== null && row.deadline_at.getTime() <= Date.now();
      if (state.at === 'waiting' && !late) return;
      const step = await this.#attempt(definition, row, state, late);
      if (!step) return;
      const moved = await this.#advance(definition, row, ...step);
      if (!moved) return; // somebody else moved it: a cancel, a signal, another runner after our lease
      row = moved;
    }
  }

  /** Does what the state asks for. Undefined: not possible now, left to a later sweep. */
  async #attempt(
    definition: SagaDefinition<Data>,
    row: Row,
    state: SagaState,
    late: boolean,
  ): Promise<Move | undefined> {
    if (late && state.at !== 'undo') return ['timeout', {}, 'TIMEOUT'];
    const step = stepOf(definition, state);
    if (state.at === 'step' && !step.run) return ['wait', {}, null];
    const call = { idempotencyKey: `${row.type}:${row.id}:${row.state}`, actor: system(`saga:${row.type}`) };
    const act = () => (state.at === 'undo' ? step.compensate?.(row.data, call) : step.run?.(row.data, call));
    try {
      const result = await withSpan(row.state, undefined, () => runInScope(newScope(call.actor), act));
      if (state.at === 'undo') return ['undone', {}, row.reason];
      if (result && 'wait' in result) return ['wait', result.wait as Data, null];
      return ['done', (result?.done ?? {}) as Data, null];
    } catch (error) {
      const answer = DomainError.is(error) && !passing.has(error.kind);
      if (answer && state.at === 'step' && step.withinMs !== undefined) return ['refused', {}, error.code];
      await this.#later(row, error);
      return undefined;
    }
  }

  /**
   * One transition, if the saga is still in the state that the step began with. Undefined when it is not: a cancel, for
   * one, must stop it before the next step. A hop without local writes is one statement.
   */
  async #advance(definition: SagaDefinition<Data>, row: Row, ...move: Move): Promise<Row | undefined> {
    const [input] = move;
    const next = this.#next(definition, row, ...move);
    const to = parseState(next.state);
    const plain = input === 'done' && to.at === 'step' && !stepOf(definition, parseState(row.state)).onDone;
    if (plain && stepOf(definition, to).run) {
      const { rowCount } = await this.unit.statement(hop, [
        row.type,
        row.id,
        row.state,
        next.state,
        JSON.stringify(next.data),
        next.due_at,
        next.deadline_at,
        next.updated_at,
      ]);
      return rowCount ? next : undefined;
    }
    return this.unit.run(this.#cause(row), async (ctx) => {
      const current = await this.#lock(row.type, row.id, ctx);
      if (current?.state !== row.state) return undefined;
      return this.#move(definition, { ...row, signals: current.signals }, ...move, ctx);
    });
  }

  /** Makes the step's local writes and stores where the saga has come to. The caller holds the row's lock. */
  async #move(
    definition: SagaDefinition<Data>,
    row: Row,
    input: SagaInput,
    facts: Data,
    reason: string | null,
    ctx: WritingContext,
  ): Promise<Row> {
    const step = stepOf(definition, parseState(row.state));
    const next = this.#next(definition, row, input, facts, reason);
    if (input === 'done') await step.onDone?.(next.data, ctx);
    if (input === 'wait') {
      await step.onWait?.(next.data, ctx);
      const early = row.signals[step.name];
      if (early) return this.#move(definition, next, ...fromSignal(early), ctx);
    }
    const to = parseState(next.state);
    if (to.at === 'step' && !stepOf(definition, to).run) return this.#move(definition, next, 'wait', {}, null, ctx);
    if (to.at === 'compensated') await definition.onCompensated(next.data, next.reason ?? 'UNKNOWN', ctx);
    ctx.sagas.set(keyOf(next), changing(next));
    return next;
  }

  /** The row as the transition leaves it. */
  #next(definition: SagaDefinition<Data>, row: Row, input: SagaInput, facts: Data, reason: string | null): Row {
    const names = definition.steps.map((step) => step.name);
    let to = transition(names, parseState(row.state), input);
    // Steps that have nothing to undo cost no transition of their own.
    while (to.at === 'undo' && !stepOf(definition, to).compensate) to = transition(names, to, 'undone');
    const now = new Date();
    let due: Date | null = new Date(now.getTime() + this.options.leaseMs);
    let ends: Date | null = null;
    if (to.at === 'step') ends = deadline(stepOf(definition, to), now);
    if (to.at === 'waiting') due = ends = row.deadline_at;
    if (isFinal(to)) due = null;
    return {
      ...row,
      state: formatState(to),
      data: { ...row.data, ...facts },
      reason,
      attempts: 1,
      due_at: due,
      deadline_at: ends,
      updated_at: now,
    };
  }

  async #later(row: Row, error: unknown): Promise<void> {
    this.#log.warn({ msg: `${row.type} ${row.id}: ${row.state} not possible now`, attempt: row.attempts, err: error });
    await this.unit.statement(
      (fence) => `
        update saga set due_at = now() + $4 * interval '1 ms', last_error = $5
        from ${fence} where type = $1 and id = $2 and state = $3`,
      [row.type, row.id, row.state, this.#backoff(row.attempts), reasonOf(error).slice(0, 500)],
    );
  }

  #backoff(attempt: number): number {
    return (0.5 + Math.random() / 2) * Math.min(this.options.backoffCapMs, this.options.backoffMs * 2 ** attempt);
  }

  #definition(name: string): SagaDefinition<Data> {
    const definition = this.#definitions.get(name);
    if (!definition) throw new Error(`No saga is called ${name}`);
    return definition;
  }

  #cause(row: Row): Cause {
    const at = new Date();
    const actor = system(`saga:${row.type}`);
    const id = newId();
    const operation = `saga:${row.type}`;
    return {
      id,
      at,
      actor,
      envelope: {
        id,
        context: this.unit.context,
        operation,
        input: { id: row.id },
        actor,
        at: at.getTime(),
        deadline: Infinity,
      },
    };
  }
}

/* Kinds of failure that pass by themselves. Everything else is an answer. */
const passing = new Set(['unavailable', 'internal', 'too_many']);

const deadline = (step: SagaStep<Data>, from: Date): Date | null =>
  step.withinMs === undefined ? null : new Date(from.getTime() + step.withinMs);

const fromSignal = (signal: Signal): Move =>
  'done' in signal ? ['done', signal.done, null] : ['refused', {}, signal.refused];

function stepOf(definition: SagaDefinition<Data>, state: SagaState): SagaStep<Data> {
  const step = 'step' in state ? definition.steps.find(({ name }) => name === state.step) : undefined;
  if (!step) throw new Error(`${definition.name} has no step for ${formatState(state)}`);
  return step;
}
