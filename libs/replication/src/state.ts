import { type Queryable, withConnection } from './connection.js';
import { applicationName } from './open.js';
import { lossOf, readSlot } from './slot.js';
import { type Stream, lsnText } from './stream.js';

export interface StreamState {
  /**
   * `absent`: never prepared, or dropped. `prepared`: it can run, and nobody runs it. `lost`: changes are missing, only a new
   * backfill mends it. `backfilling`, `streaming`: a process runs it; of a shared log, a process publishes it.
   */
  state: 'absent' | 'prepared' | 'lost' | 'backfilling' | 'streaming';
  /** Why it is lost, or what the process that runs it is stuck at; null when all is well. */
  reason: string | null;
  /** null: without a backfill, the target had the rows. */
  backfill: {
    done: boolean;
    percent: number;
    rows: number;
    tables: { table: string; rows: number; estimate: number; done: boolean }[];
  } | null;
  /** How far the target is behind the source's log: nothing in it has to be about these tables. null when absent. */
  lag: { bytes: number; ms: number } | null;
  retainedBytes: number;
  /** What the source keeps at most for a slot; null: no limit. */
  keepBytes: number | null;
  walStatus: string | null;
  appliedLsn: string | null;
  active: boolean;
}

interface MarkRow {
  lsn: string;
  behindMs: string;
  problem: string | null;
  log: string | null;
  loss: string | null;
  tables: { table: string; rows: number; estimate: number; done: boolean }[];
  rereads: boolean;
}

/**
 * How a stream stands, as both databases tell: no process has to run. Whoever asks often gives connections of its own;
 * otherwise two are made for each call.
 */
export async function streamState(
  stream: Stream,
  clients?: { source: Queryable; target: Queryable },
): Promise<StreamState> {
  const as = `${applicationName(stream)}:state`;
  const onTarget = <T>(work: (target: Queryable) => Promise<T>) =>
    clients ? work(clients.target) : withConnection(stream.target, { as }, work);
  const onSource = <T>(work: (source: Queryable) => Promise<T>) =>
    clients ? work(clients.source) : withConnection(stream.source, { as }, work);
  // The mark first: read the other way round, a source that moves on in between would look like a mark ahead of it.
  const readMark = () =>
    onTarget(async (target) => {
      const { rows: there } = await target.query<{ is: boolean }>(
        `select to_regclass('banyan_replication.reread') is not null as is`,
      );
      if (!there[0]?.is) return undefined;
      const { rows } = await target.query<MarkRow>(
        // Through JSON: tables of an earlier version have no such columns until the stream runs again.
        `select (lsn - '0/0')::text as lsn, problem, to_jsonb(m) ->> 'log' as log, to_jsonb(m) ->> 'loss' as loss,
              (extract(epoch from clock_timestamp() - source_at) * 1000)::text as "behindMs",
              (select coalesce(json_agg(json_build_object('table', table_name, 'rows', rows, 'estimate', estimate, 'done', done)
                 order by table_name), '[]') from banyan_replication.backfill b where b.stream = m.stream) as tables,
              exists (select from banyan_replication.reread r where r.stream = m.stream) as rereads
         from banyan_replication.mark m where stream = $1`,
        [stream.name],
      );
      return rows[0];
    });
  const mark = await readMark();
  const log = await onSource((source) => readSlot(source, stream.name));
  const { slot } = log;
  const facts = {
    retainedBytes: slot?.retainedBytes ?? 0,
    keepBytes: slot?.keepBytes ?? null,
    walStatus: slot?.walStatus ?? null,
    active: slot?.active ?? false,
  };
  if (!mark) return { state: 'absent', reason: null, backfill: null, lag: null, appliedLsn: null, ...facts };

  const applied = BigInt(mark.lsn);
  // A target that has not followed the shared log yet does not know that its slot feeds one.
  const isShared = (is: MarkRow, feeds: string | undefined) => is.log !== null || feeds !== undefined;
  let loss = mark.loss ?? lossOf(log, applied, isShared(mark, log.feeds));
  if (loss && slot && applied <= log.now) {
    // Or the stream has moved on between the two looks, mark and slot: then the mark is at least there by now, and what
    // the slot feeds, which is noted before it moves, is to be seen.
    const later = (await readMark()) ?? mark;
    const { feeds } = await onSource((source) => readSlot(source, stream.name));
    const now = BigInt(later.lsn) > log.now ? BigInt(later.lsn) : log.now;
    loss = later.loss ?? lossOf({ ...log, now }, BigInt(later.lsn), isShared(later, feeds));
  }
  const backfill = backfillOf(mark);
  const bytes = Math.max(0, Number(log.now - applied));
  const running = backfill && !backfill.done ? 'backfilling' : 'streaming';
  return {
    state: loss ? 'lost' : facts.active ? running : 'prepared',
    reason: loss ?? mark.problem,
    backfill,
    lag: { bytes, ms: bytes === 0 ? 0 : Math.max(0, Math.round(Number(mark.behindMs))) },
    appliedLsn: lsnText(applied),
    ...facts,
  };
}

function backfillOf({ tables, rereads }: MarkRow): StreamState['backfill'] {
  if (tables.length === 0) return null;
  const rows = tables.reduce((sum, table) => sum + table.rows, 0);
  const all = tables.reduce((sum, table) => sum + Math.max(table.estimate, table.rows), 0);
  const done = !rereads && tables.every((table) => table.done);
  // An estimate may be short of the truth: 100 is said only of what is done.
  return { done, percent: done ? 100 : Math.min(99, Math.floor((100 * rows) / (all || 1))), rows, tables };
}
