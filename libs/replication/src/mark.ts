import type pg from 'pg';
import { lsnText } from './stream.js';

/* Grows when the tables below change shape. */
const VERSION = '3';

/**
 * What the target keeps of the streams that end in it. `mark`: how far each has been applied, written in the same
 * transaction as the rows; everybody may read it, because a reader waits on it for its own last write. `backfill`: how
 * far each table has been copied. `reread`: keys of rows that have to be read once more.
 */
const TABLES = `
  create schema if not exists banyan_replication;
  create table if not exists banyan_replication.mark (
    stream text primary key,
    lsn pg_lsn not null,
    -- The source's clock when its log stood there.
    source_at timestamptz not null,
    -- The one process that may move it.
    holder text,
    problem text,
    moved_at timestamptz not null default now()
  ) with (fillfactor = 10, autovacuum_vacuum_threshold = 1000);
  -- The shared log that it follows, if not the slot, and the server and slot whose log that is; why changes are missing,
  -- when only its follower can see it.
  alter table banyan_replication.mark add column if not exists log text, add column if not exists source text,
    add column if not exists loss text;
  create table if not exists banyan_replication.backfill (
    stream text not null references banyan_replication.mark on delete cascade,
    table_name text not null,
    done boolean not null default false,
    last_key text[],
    rows bigint not null default 0,
    estimate bigint not null default 0,
    primary key (stream, table_name)
  );
  create table if not exists banyan_replication.reread (
    stream text not null references banyan_replication.mark on delete cascade,
    table_name text not null,
    key text[] not null,
    primary key (stream, table_name, key)
  );
  create or replace function banyan_replication.advance(
    of_stream text, by_holder text, from_lsn pg_lsn, to_lsn pg_lsn, at timestamptz
  ) returns void language plpgsql set search_path = pg_catalog as $$
  begin
    update banyan_replication.mark set lsn = to_lsn, source_at = at, problem = null, moved_at = clock_timestamp()
      where stream = of_stream and holder = by_holder and lsn = from_lsn;
    -- Somebody else runs the stream by now, or it was prepared anew: nothing of this transaction may stay.
    if not found then
      raise exception 'the mark of % is no longer ours', of_stream using errcode = 'BR001';
    end if;
  end $$;
  grant usage on schema banyan_replication to public;
  grant select on banyan_replication.mark to public;
  comment on schema banyan_replication is 'banyan ${VERSION}'`;

/** SQLSTATE of a mark that another process has taken over. */
export const NOT_OURS = 'BR001';

export async function ensureMarkTables(target: pg.ClientBase): Promise<void> {
  const { rowCount } = await target.query(
    `select from pg_namespace where nspname = 'banyan_replication' and obj_description(oid, 'pg_namespace') = $1`,
    [`banyan ${VERSION}`],
  );
  if (rowCount) return;
  // One simple query is one transaction.
  await target.query(`select pg_advisory_xact_lock(hashtextextended('banyan.replication', 0)); ${TABLES}`);
}

export interface Mark {
  lsn: bigint;
  holder: string | null;
  /** The shared log that was followed last; null: the slot. */
  log: string | null;
  /** Whose log that is, and so what the position means. */
  source: string | null;
  /** Why changes are missing, as who followed that log saw. */
  loss: string | null;
}

type MarkRow = Omit<Mark, 'lsn'> & { lsn: string };
const markOf = (row: MarkRow | undefined): Mark | undefined => row && { ...row, lsn: BigInt(row.lsn) };

/** Makes `holder` the one who may move the mark. From here every transaction of an earlier holder fails as a whole. */
export async function takeMark(target: pg.ClientBase, stream: string, holder: string): Promise<Mark | undefined> {
  const { rows } = await target.query<MarkRow>(
    `update banyan_replication.mark set holder = $2 where stream = $1
      returning (lsn - '0/0')::text as lsn, holder, log, source, loss`,
    [stream, holder],
  );
  return markOf(rows[0]);
}

export async function readMark(target: pg.ClientBase, stream: string): Promise<Mark | undefined> {
  const { rows } = await target.query<MarkRow>(
    `select (lsn - '0/0')::text as lsn, holder, log, source, loss from banyan_replication.mark where stream = $1`,
    [stream],
  );
  return markOf(rows[0]);
}

/** From here the slot may have let go of what is after the mark: it is in that log. */
export async function noteLog(
  target: pg.ClientBase,
  stream: string,
  holder: string,
  followed: { log: string; source: string } | undefined,
): Promise<void> {
  await target.query(
    `update banyan_replication.mark set log = $3, source = $4
      where stream = $1 and holder = $2 and (log, source) is distinct from ($3, $4)`,
    [stream, holder, followed?.log ?? null, followed?.source ?? null],
  );
}

/** What nobody else can see; only preparing the stream anew takes it back. */
export async function noteLoss(target: pg.ClientBase, stream: string, holder: string, loss: string): Promise<void> {
  await target.query('update banyan_replication.mark set loss = $3 where stream = $1 and holder = $2', [
    stream,
    holder,
    loss,
  ]);
}

export const ADVANCE = 'select banyan_replication.advance($1, $2, $3, $4, to_timestamp($5))';
/** Returns only when everything committed before is on the target's disk. Local: a standby's word is not asked for. */
export const ADVANCE_DURABLY = `select set_config('synchronous_commit', 'local', true), banyan_replication.advance($1, $2, $3, $4, to_timestamp($5))`;

/**
 * A mark moves only from where its mover left it: a batch that was sent before it was known that the one before it
 * failed fails too.
 */
export const advanceValues = (stream: string, holder: string, from: bigint, to: bigint, atMs: number): unknown[] => [
  stream,
  holder,
  lsnText(from),
  lsnText(to),
  atMs / 1000,
];

/** One row a table: tables that are still to be copied. */
export interface TableProgress {
  table: string;
  done: boolean;
  lastKey: string[] | null;
  rows: number;
}

export async function readProgress(target: pg.ClientBase, stream: string): Promise<TableProgress[]> {
  const { rows } = await target.query<{ table: string; done: boolean; lastKey: string[] | null; rows: string }>(
    `select table_name as "table", done, last_key as "lastKey", rows::text from banyan_replication.backfill
      where stream = $1 order by 1`,
    [stream],
  );
  return rows.map((row) => ({ ...row, rows: Number(row.rows) }));
}

/** The first 1,000 keys to be read again, of one table. */
export async function readReread(
  target: pg.ClientBase,
  stream: string,
): Promise<{ table: string; keys: string[][] } | undefined> {
  const { rows } = await target.query<{ table: string; key: string[] }>(
    `select table_name as "table", key from banyan_replication.reread where stream = $1 and table_name =
       (select min(table_name) from banyan_replication.reread where stream = $1) limit 1000`,
    [stream],
  );
  return rows[0] && { table: rows[0].table, keys: rows.map(({ key }) => key) };
}
