import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { Applier } from './applier.js';
import type { Chunk } from './backfill.js';
import { type Table, chosenTables, readTables, targetSchemaOf } from './catalog.js';
import { connect, qualified, quoted } from './connection.js';
import { EarlierTransactions } from './earlier-transactions.js';
import { historyOf } from './history.js';
import { LogReader, type LogSource } from './log-reader.js';
import {
  type Mark,
  type TableProgress,
  ensureMarkTables,
  noteLog,
  noteLoss,
  readMark,
  readProgress,
  readReread,
  takeMark,
} from './mark.js';
import { type SourceLog, lossOf, lost, noteFeeds, readSlot } from './slot.js';
import { ReplicationError, unreachable } from './errors.js';
import type { Stream } from './stream.js';

/** A stream with both ends in hand. */
export interface Opened {
  /** Its statements are sent without waiting for the one before. */
  target: pg.Client;
  source: pg.Client;
  log: LogSource;
  /** The target's tables. */
  tables: ReadonlyMap<string, Table>;
  /** The primary keys of the source's tables. */
  keys: ReadonlyMap<string, readonly string[]>;
  mark: Mark;
  backfilling: boolean;
  earlier: EarlierTransactions;
  progress(): Promise<TableProgress[]>;
  rereads(): Promise<{ table: string; keys: string[][] } | undefined>;
  /** Writes how far the copy is, in the chunk's own transaction. */
  noteChunk(applier: Applier, chunk: Chunk): Promise<void>;
  /** Forgets keys that were read again; true when nothing is left to copy. */
  noteReread(applier: Applier, table: string, keys: readonly string[][]): Promise<boolean>;
  close(): Promise<void>;
}

/**
 * How the target's session differs: no triggers and no foreign keys (they ran where the rows come from), no wait for the
 * disk (the mark is lost with the rows), and lookups by key whatever the planner believes of a table that was empty when
 * it last looked.
 */
const TARGET_SETTINGS = `
  set session_replication_role = replica; set synchronous_commit = off; set search_path = pg_catalog;
  set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set enable_bitmapscan = off;
  set jit = off; set plan_cache_mode = force_generic_plan; set lock_timeout = 0; set statement_timeout = 0;
  set idle_in_transaction_session_timeout = 0`;

/* For what a dead bridge left behind to end. */
const TAKE_OVER_MS = 10_000;
const IN_USE = '55006';

export interface SharedSource {
  /** Of the shared log. */
  name: string;
  /** This process leaves the slot to another. */
  isGuest: boolean;
  /** Of that source. Or why changes after the mark cannot be had any more. */
  follow: (mark: bigint, source: string) => Promise<LogSource | string>;
}

export interface OpenOptions {
  holder: string;
  /** This process has not had the stream before, and takes it from whoever has. */
  first: boolean;
  onTake: () => void;
  /** Where the log comes from, if not from the slot. */
  shared?: SharedSource | undefined;
}

export async function openStream(stream: Stream, { holder, first, onTake, shared }: OpenOptions): Promise<Opened> {
  const clients: { end(): Promise<void> }[] = [];
  const close = async () => void (await Promise.all(clients.map((client) => client.end().catch(() => {}))));
  try {
    const as = applicationName(stream);
    const target = await connect(stream.target, { as, pipeline: true }).catch((error: Error) => {
      throw unreachable('target', error);
    });
    clients.push(target);
    await ensureMarkTables(target);
    const mark = await take(target, stream, holder, first);
    onTake();
    const source = await connect(stream.source, { as });
    clients.push(source);
    refuseLoss(stream, await readSlot(source, stream.name), mark, shared !== undefined);
    const refuse = async (loss: string): Promise<never> => {
      await noteLoss(target, stream.name, holder, loss);
      throw lost(stream, loss);
    };
    const followed = shared && { log: shared.name, source: (await historyOf(source, stream.name)).source };
    if (followed && mark.source !== null && mark.source !== followed.source)
      await refuse('the mark is of another source than the one that is there now');
    await noteLog(target, stream.name, holder, followed);
    await target.query(TARGET_SETTINGS);
    await useOrigin(target, stream);
    const keys = await publishNewTables(source, target, stream, shared?.isGuest === true);
    const earlier = await EarlierTransactions.now(source);
    const progress = await readProgress(target, stream.name);
    const rereads = () => readReread(target, stream.name);
    const backfilling = progress.some(({ done }) => !done) || (await rereads()) !== undefined;
    const tables = await readTables(target, targetSchemaOf(stream));
    const log = shared ? await shared.follow(mark.lsn, followed!.source) : await followSlot(source, stream, mark);
    return {
      target,
      source,
      log: typeof log === 'string' ? await refuse(log) : log,
      tables,
      keys,
      mark,
      backfilling,
      earlier,
      progress: () => readProgress(target, stream.name),
      rereads,
      noteChunk: (applier, chunk) => noteChunk(applier, stream.name, chunk),
      noteReread: (applier, table, keys) => noteReread(applier, stream.name, table, keys),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

export const applicationName = (stream: Stream): string => `banyan:${stream.name}`;

async function take(target: pg.Client, stream: Stream, holder: string, first: boolean): Promise<Mark> {
  if (!first && (await readMark(target, stream.name))?.holder !== holder)
    throw new ReplicationError(
      'SUPERSEDED',
      `Another process runs ${stream.name} by now, or it was prepared anew.`,
      'This one ends.',
    );
  // Waits for the disk: what an earlier process left visible is acknowledged to the source from here.
  await target.query('set synchronous_commit = local');
  const mark = await takeMark(target, stream.name, holder);
  if (mark) return mark;
  throw new ReplicationError('STREAM_ABSENT', `The stream ${stream.name} is not prepared.`, 'Prepare it.');
}

/** Marks what this session writes, so that a stream in the other direction leaves it out. */
export async function useOrigin(target: pg.Client, stream: Stream): Promise<void> {
  const origin = await originOf(target, stream);
  const there = await target.query('select from pg_replication_origin where roname = $1', [origin]);
  if (!there.rowCount) {
    await target.query(DROP_ORPHANS).catch(() => {}); // somebody else may do the same
    await target.query('select pg_replication_origin_create($1)', [origin]).catch((error: pg.DatabaseError) => {
      if (error.code !== '23505') throw error;
    });
  }
  await whenFree(
    () => target.query('select pg_replication_origin_session_setup($1)', [origin]),
    () =>
      target.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where application_name = $1 and pid <> pg_backend_pid() and datname = current_database()
            and backend_type = 'client backend'`,
        [applicationName(stream)],
      ),
  );
}

export async function dropOrigin(target: pg.Client, stream: Stream): Promise<void> {
  const origin = await originOf(target, stream);
  const drop = 'select pg_replication_origin_drop(roname) from pg_replication_origin where roname = $1';
  await whenFree(
    () => target.query(drop, [origin]),
    () => Promise.resolve(),
  );
}

/* Origins outlive the database that they were made for, and there are few. */
const DROP_ORPHANS = `select pg_replication_origin_drop(roname) from pg_replication_origin
  where roname like 'banyan:%' and split_part(roname, ':', 2) not in (select oid::text from pg_database)`;

/** Origins belong to the whole server; two databases of it may each have a stream of this name. */
async function originOf(target: pg.Client, { name }: Stream): Promise<string> {
  const { rows } = await target.query<{ origin: string }>(
    `select 'banyan:' || oid || ':' || $1 as origin from pg_database where datname = current_database()`,
    [name],
  );
  return rows[0]!.origin;
}

/** `isShared`: what the slot has let go of is not missing yet. */
function refuseLoss(stream: Stream, facts: SourceLog, mark: Mark, isShared: boolean): void {
  const loss = mark.loss ?? lossOf(facts, mark.lsn, isShared);
  if (!loss) return;
  const log = facts.feeds ?? mark.log;
  if (isShared || !log || !facts.slot || facts.slot.confirmed <= mark.lsn) throw lost(stream, loss);
  throw lost(stream, `${loss}; what lies between is in the stream ${log} of NATS, and was not followed to its end`);
}

/** Takes the slot itself, which from here feeds no shared log. */
async function followSlot(source: pg.Client, stream: Stream, mark: Mark): Promise<LogReader> {
  const reader = await startReader(source, stream, mark.lsn, true);
  try {
    // Whoever published from it may have gone on until it was taken.
    const facts = await readSlot(source, stream.name);
    refuseLoss(stream, facts, mark, false);
    if (facts.feeds !== undefined) await noteFeeds(source, stream.name, undefined);
    return reader;
  } catch (error) {
    reader.close();
    throw error;
  }
}

/** `takeOver`: whoever reads the slot is ended; otherwise it fails while somebody does. */
export function startReader(source: pg.Client, stream: Stream, from: bigint, takeOver: boolean): Promise<LogReader> {
  const start = () => LogReader.start(stream.source, { slot: stream.name, from, as: `${applicationName(stream)}:log` });
  if (!takeOver) return start();
  return whenFree(start, async () => {
    const { slot } = await readSlot(source, stream.name);
    if (slot?.activePid) await source.query('select pg_terminate_backend($1)', [slot.activePid]);
  });
}

/** Whoever holds what we need cannot move the mark any more: it is ended. */
async function whenFree<T>(attempt: () => Promise<T>, end: () => Promise<unknown>): Promise<T> {
  for (const deadline = Date.now() + TAKE_OVER_MS; ;) {
    try {
      return await attempt();
    } catch (error) {
      if ((error as pg.DatabaseError).code !== IN_USE || Date.now() > deadline) throw error;
      await end();
      await sleep(50);
    }
  }
}

/** Tables that the source has got since: from here they are in the log, and their rows are copied like the others'. */
async function publishNewTables(
  source: pg.Client,
  target: pg.Client,
  stream: Stream,
  isGuest: boolean,
): Promise<Map<string, readonly string[]>> {
  const there = await readTables(source, stream.schema);
  const { rows } = await source.query<{ name: string }>(
    'select tablename as name from pg_publication_tables where pubname = $1 and schemaname = $2',
    [stream.name, stream.schema],
  );
  const published = new Set(rows.map(({ name }) => name));
  // A guest has a copy of everything that was there when it joined; others may have published a table since.
  const known = isGuest ? new Set((await readProgress(target, stream.name)).map(({ table }) => table)) : published;
  const added = chosenTables(stream, there.keys()).filter((name) => !known.has(name));
  for (const name of added) {
    if (there.get(name)?.key.length === 0)
      throw new ReplicationError(
        'NO_PRIMARY_KEY',
        `The new table ${stream.schema}.${name} has no primary key.`,
        'Give it one.',
      );
    // First what has to be copied: killed between the two, the next run does the second.
    await target.query(
      `insert into banyan_replication.backfill (stream, table_name) values ($1, $2)
       on conflict (stream, table_name) do update set done = false, last_key = null, rows = 0`,
      [stream.name, name],
    );
    if (published.has(name)) continue;
    await source.query(`alter publication ${quoted(stream.name)} add table ${qualified(stream.schema, name)}`);
  }
  return new Map([...there].map(([name, { key }]) => [name, key]));
}

async function noteChunk(applier: Applier, stream: string, chunk: Chunk): Promise<void> {
  void applier.send(
    `update banyan_replication.backfill set done = $3, last_key = $4, rows = rows + $5,
            estimate = case when $3 then rows + $5 else greatest(estimate, rows + $5) end
      where stream = $1 and table_name = $2`,
    [stream, chunk.table, chunk.last, chunk.lastKey, chunk.rows.length],
  );
}

async function noteReread(
  applier: Applier,
  stream: string,
  table: string,
  keys: readonly string[][],
): Promise<boolean> {
  for (const key of keys)
    void applier.send(
      'delete from banyan_replication.reread where stream = $1 and table_name = $2 and key = $3::text[]',
      [stream, table, key],
    );
  const left = await applier.send(
    `select from banyan_replication.reread where stream = $1
      union all select from banyan_replication.backfill where stream = $1 and not done`,
    [stream],
  );
  return left.rowCount === 0;
}
