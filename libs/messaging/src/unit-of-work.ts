import { setTimeout as pause } from 'node:timers/promises';
import { type Actor, type AnyEvent, type ConsistencyToken, type Side, derivedId } from '@banyan/kernel';
import { type Database, RetryableTransactionError, type Transaction } from '@banyan/platform/database';
import { currentTraceparent } from '@banyan/platform/telemetry';
import type { z } from 'zod';
import type { Envelope } from './envelope.js';
import { moved } from './failures.js';
import type { CommandContext } from './handlers.js';
import type { Placement } from './placement.js';
import { currentScope, newScope, runInScope } from './scope.js';

/** An event as it waits in the transaction for its outbox row. */
interface Emitted {
  id: string;
  type: string;
  type_version: number;
  aggregate: string;
  data: unknown;
  traceparent?: string;
  at: string;
  subscribers: readonly string[];
}

/** A row of `idempotency_key`, by its columns. */
export interface IdempotencyRow {
  actor: string;
  operation: string;
  key: string;
  request_hash: string;
  output: string;
  created_at: Date;
}

/** A row of `saga`, by the columns that a transition changes. */
export interface SagaRow {
  type: string;
  id: string;
  state: string;
  data: Record<string, unknown>;
  reason: string | null;
  attempts: number;
  due_at: Date | null;
  deadline_at: Date | null;
  updated_at: Date;
}

/** What a transaction leaves behind besides the handler's rows. */
interface Ending {
  events: Emitted[];
  keys: IdempotencyRow[];
  sagas: Map<string, SagaRow>;
  afterCommit: (() => void)[];
}

/** The message that a unit of work serves: what makes its times and ids the same in a replay. */
export interface Cause {
  /** Seeds the ids. */
  id: string;
  at: Date;
  actor: Actor;
  envelope: Envelope;
  prepared?: unknown;
}

/** A CommandContext with what the pipeline itself needs. Handlers see only the interface. */
export class WritingContext implements CommandContext {
  readonly now: Date;
  readonly actor: Actor;
  readonly envelope: Envelope;
  readonly prepared: unknown;
  readonly #seed: string;
  readonly #unit: UnitOfWork;
  readonly #shared: Ending;
  #ids = 0;

  constructor(
    unit: UnitOfWork,
    cause: Cause,
    readonly tx: Transaction,
    from?: WritingContext,
  ) {
    this.now = cause.at;
    this.actor = cause.actor;
    this.envelope = cause.envelope;
    this.prepared = cause.prepared;
    this.#seed = cause.id;
    this.#unit = unit;
    this.#shared = from ? from.#shared : { events: [], keys: [], sagas: new Map(), afterCommit: [] };
  }

  newId(): string {
    return derivedId(this.#seed, this.now, this.#ids++);
  }

  emit<E extends AnyEvent>(event: E, aggregateId: string, data: z.input<E['data']>): void {
    this.#shared.events.push({
      id: this.newId(),
      type: event.name,
      type_version: event.version,
      aggregate: `${event.aggregate}/${aggregateId}`,
      data: event.data.parse(data),
      traceparent: currentTraceparent(),
      at: this.now.toISOString(),
      subscribers: this.#unit.subscribersOf(event.name),
    });
  }

  /** A context for another message handled in the same transaction. */
  fork(cause: Cause): WritingContext {
    return new WritingContext(this.#unit, cause, this.tx, this);
  }

  afterCommit(fn: () => void): void {
    this.#shared.afterCommit.push(fn);
  }

  /** The idempotency row that the transaction leaves behind. */
  remember(key: IdempotencyRow): void {
    this.#shared.keys.push(key);
  }

  /** A saga as this transaction leaves it, and what it has left so far: it is written at the end. */
  readonly sagas = {
    get: (key: string): SagaRow | undefined => this.#shared.sagas.get(key),
    set: (key: string, row: SagaRow): void => void this.#shared.sagas.set(key, row),
  };

  /** Writes what messaging keeps of this transaction, in the same round trip as COMMIT. */
  finish(): void {
    const { events, keys, sagas } = this.#shared;
    if (!events.length && !keys.length && !sagas.size) return;
    this.tx.atCommit('select banyan_finish($1, $2, $3)', [json(events), json(keys), json([...sagas.values()])]);
  }

  /** To be called once the transaction has committed. */
  committed(): void {
    for (const fn of this.#shared.afterCommit) fn();
  }

  /** Does anybody wait for what was emitted? */
  get awaited(): boolean {
    return this.#shared.events.some(({ subscribers }) => subscribers.length > 0);
  }
}

const json = (rows: readonly unknown[]): string | null => (rows.length ? JSON.stringify(rows) : null);

/** How often a transaction that met another one is run again before the caller hears of it. */
const attempts = 4;

/**
 * The one way to write a context's data: a transaction that starts with the fence and ends with the outbox.
 * Everything that changes rows goes through here: commands, events, saga transitions.
 */
export class UnitOfWork {
  readonly #fence: { text: string };
  #epoch: number | undefined;

  constructor(
    readonly context: string,
    readonly db: Database,
    readonly side: Side,
    readonly subscribersOf: (event: string) => readonly string[],
    /** Told after a commit that left events in the outbox for somebody. */
    private readonly published: () => void,
    private readonly placement?: Pick<Placement, 'followed' | 'took'>,
  ) {
    this.#fence = { text: `select banyan_fence('${side}', null)` };
  }

  /**
   * Runs `fn` in a transaction of its own. Run again, from the start, when the transaction met another one. `told` gets
   * what a later read needs to see what was written.
   */
  async run<T>(
    cause: Cause,
    fn: (ctx: WritingContext) => Promise<T>,
    told?: (token: ConsistencyToken) => void,
  ): Promise<T> {
    const scope = currentScope() ?? newScope(cause.actor);
    if (scope.writing) throw new Error(`A handler of ${scope.writing} may not open a transaction of ${this.context}`);
    for (let attempt = 1; ; attempt++) {
      try {
        let context: WritingContext | undefined;
        let epoch = 0;
        let lsn: string | undefined;
        const result = await runInScope(
          { ...scope, writing: this.context, afterCommit: (fn) => context!.afterCommit(fn) },
          () =>
            this.db.transaction(
              this.#fenceFor(cause.envelope.epoch),
              async (tx) => {
                context = new WritingContext(this, cause, tx);
                const value = await fn(context);
                context.finish();
                if (told && this.placement?.followed?.(this.context))
                  tx.afterCommit(LOG_POSITION, ({ rows }) => (lsn = String(rows[0]?.lsn)));
                return value;
              },
              { onBegin: ([fence]) => (epoch = this.#entered(Number(fence?.rows[0]?.banyan_fence))) },
            ),
        );
        told?.({ side: this.side, epoch, ...(lsn && { lsn }) });
        if (context!.awaited) this.published();
        context!.committed();
        return result;
      } catch (error) {
        if (isFenced(error)) throw moved(this.context, error);
        if (!(error instanceof RetryableTransactionError) || attempt === attempts) throw error;
        await pause(Math.random() * 10 * 2 ** attempt);
      }
    }
  }

  /**
   * Runs one writing statement that needs no transaction around it. `text` gets the fence as a table to join: asked, and
   * its lock held, within the statement.
   */
  async statement<R extends Record<string, unknown>>(text: (fence: string) => string, values: unknown[]) {
    try {
      return await this.db.query<R>(text(`(${this.#fence.text}) as fence`), values);
    } catch (error) {
      throw isFenced(error) ? moved(this.context, error) : error;
    }
  }

  /** The epoch that the fence told, which is news for the placement when it is another one than before. */
  #entered(epoch: number): number {
    if (epoch !== this.#epoch) this.placement?.took?.(this.context, epoch);
    return (this.#epoch = epoch);
  }

  #fenceFor(epoch: number | undefined): { text: string } {
    return epoch === undefined ? this.#fence : { text: `select banyan_fence('${this.side}', ${Math.trunc(epoch)})` };
  }
}

/* At least the position of the commit that it comes after, which is flushed by now, unless commits wait for no disk. What
   others have inserted behind it and nobody has flushed is out of a bridge's reach for up to 200 ms (wal_writer_delay). */
const LOG_POSITION = `select (case current_setting('synchronous_commit') when 'off' then pg_current_wal_insert_lsn()
  else pg_current_wal_flush_lsn() end)::text as lsn`;

const isFenced = (error: unknown): boolean => (error as { code?: string }).code === 'BN001';
