import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { chosenTables, readTables, targetSchemaOf } from './catalog.js';
import { connect, qualified, quoted, withConnection } from './connection.js';
import { historyOf } from './history.js';
import { ensureMarkTables } from './mark.js';
import { applicationName, dropOrigin, useOrigin } from './open.js';
import { refuseBadName } from './preflight.js';
import { readSlot } from './slot.js';
import { ReplicationError } from './errors.js';
import type { SharedLog } from './shared-log.js';
import { type Stream, lsnText } from './stream.js';

export interface PrepareOptions {
  /** Empty the target's tables and copy all rows; otherwise the target is taken to have them already. */
  backfill: boolean;
  /**
   * The last word of whoever knows whose data it is; it refuses by throwing. With a backfill it runs in the transaction
   * that empties the target; without one after the slot was made, in the transaction that writes the mark.
   */
  check?: (clients: { source: pg.ClientBase; target: pg.ClientBase }) => Promise<void>;
}

/* A transaction of the source that does not end keeps a slot from being made. */
const SLOT_MS = 60_000;
/* For a bridge that was told to end, or was killed, to let go of the slot. */
const BUSY_MS = 5_000;

/**
 * Makes slot, publication and mark, anew if they were there: whatever happened before, afterwards the stream can run. It
 * can be killed at any instant and repeated: the mark, which says that all is there, comes last.
 */
export async function prepareStream(stream: Stream, { backfill, check }: PrepareOptions): Promise<void> {
  refuseBadName(stream);
  await withBoth(stream, async (source, target) => {
    await ensureMarkTables(target);
    await target.query(`select pg_advisory_lock(hashtextextended('banyan.replication.' || $1, 0))`, [stream.name]);
    await untilIdle(source, stream);
    const tables = chosenTables(stream, (await readTables(source, stream.schema)).keys());
    if (tables.length === 0)
      throw new ReplicationError(
        'NO_TABLES',
        `There is nothing to copy in ${stream.schema}.`,
        'Name tables that exist.',
      );

    await useOrigin(target, stream); // emptying the target must not come back as an echo
    await transaction(target, async () => {
      if (backfill) await check?.({ source, target });
      await target.query('delete from banyan_replication.mark where stream = $1', [stream.name]);
      if (backfill) await empty(source, target, stream);
    });
    await dropSlot(source, stream);
    await source.query(`drop publication if exists ${quoted(stream.name)}`);
    await source.query(
      `create publication ${quoted(stream.name)} for table
         ${tables.map((table) => qualified(stream.schema, table)).join(', ')} with (publish_via_partition_root = true)`,
    );
    const lsn = await createSlot(source, stream);
    try {
      await transaction(target, async () => {
        if (!backfill) await check?.({ source, target });
        await target.query(
          'insert into banyan_replication.mark (stream, lsn, source_at) values ($1, $2, clock_timestamp())',
          [stream.name, lsn],
        );
        if (backfill) await planCopy(source, target, stream, tables);
      });
    } catch (error) {
      await dropSlot(source, stream).catch(() => {});
      throw error;
    }
  });
}

/**
 * Prepares one more target for a stream whose log is shared: its tables are emptied and copied, and from then on it follows
 * at its own pace. It runs with `log.publish` off, and ends with `leaveStream`.
 */
export async function joinStream(stream: Stream, log: SharedLog): Promise<void> {
  refuseBadName(stream);
  const { LogStream } = await import('./shared-log.js');
  await withBoth(stream, async (source, target) => {
    const history = await historyOf(source, stream.name);
    const { lsn } = await (await LogStream.open(log)).end(history);
    if (lsn === undefined)
      throw new ReplicationError(
        'STREAM_ABSENT',
        `Nobody publishes ${log.stream} in NATS.`,
        'Run its publisher first.',
      );
    await ensureMarkTables(target);
    await useOrigin(target, stream);
    await transaction(target, async () => {
      await target.query('delete from banyan_replication.mark where stream = $1', [stream.name]);
      await empty(source, target, stream);
      // What is after it is in the log; what is before it is in the copy.
      await target.query(
        `insert into banyan_replication.mark (stream, lsn, source_at, log, source)
         values ($1, $2, clock_timestamp(), $3, $4)`,
        [stream.name, lsnText(lsn), log.stream, history.source],
      );
      const tables = chosenTables(stream, (await readTables(source, stream.schema)).keys());
      await planCopy(source, target, stream, tables);
    });
  });
}

/** Takes mark and origin of a target that had joined away; the rows stay, and the stream goes on for the others. */
export async function leaveStream(stream: Stream): Promise<void> {
  refuseBadName(stream);
  await withBoth(stream, async (_, target) => {
    await ensureMarkTables(target);
    await target.query('delete from banyan_replication.mark where stream = $1', [stream.name]);
    await dropOrigin(target, stream);
  });
}

/** Is there nothing in the target that a backfill would throw away? */
export async function targetIsEmpty(stream: Stream): Promise<boolean> {
  return withBoth(stream, async (source, target) => {
    const schema = targetSchemaOf(stream);
    for (const table of await filledTables(source, target, stream)) {
      const { rowCount } = await target.query(`select from ${qualified(schema, table)} limit 1`);
      if (rowCount) return false;
    }
    return true;
  });
}

/** Takes slot, publication, mark and origin away; the rows stay. No error when they are not there. */
export async function dropStream(stream: Stream): Promise<void> {
  refuseBadName(stream);
  await withBoth(stream, async (source, target) => {
    await untilIdle(source, stream);
    await ensureMarkTables(target);
    await target.query('delete from banyan_replication.mark where stream = $1', [stream.name]);
    await dropSlot(source, stream);
    await source.query(`drop publication if exists ${quoted(stream.name)}`);
    await dropOrigin(target, stream);
  });
}

/**
 * Moves a stream that nobody runs to `lsn` of its source, so that its slot does not pin the log. Only right while
 * everything in the source up to there came from the target, or is in it.
 */
export async function skipTo(stream: Stream, lsn: bigint): Promise<void> {
  await withBoth(stream, async (source, target) => {
    const { rowCount } = await target.query(
      'update banyan_replication.mark set lsn = $2, source_at = clock_timestamp() where stream = $1 and lsn < $2',
      [stream.name, lsnText(lsn)],
    );
    if (rowCount) await source.query('select pg_replication_slot_advance($1, $2)', [stream.name, lsnText(lsn)]);
  });
}

async function withBoth<T>(stream: Stream, work: (source: pg.Client, target: pg.Client) => Promise<T>): Promise<T> {
  const as = `${applicationName(stream)}:prepare`;
  return withConnection(stream.source, { as }, async (source) => {
    const target = await connect(stream.target, { as });
    try {
      return await work(source, target);
    } finally {
      await target.end().catch(() => {});
    }
  });
}

async function untilIdle(source: pg.Client, stream: Stream): Promise<void> {
  for (const deadline = Date.now() + BUSY_MS; (await readSlot(source, stream.name)).slot?.active; await sleep(50))
    if (Date.now() > deadline)
      throw new ReplicationError('STREAM_BUSY', `A process runs the stream ${stream.name}.`, 'Stop it first.');
}

async function dropSlot(source: pg.Client, { name }: Stream): Promise<void> {
  await source.query('select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1', [
    name,
  ]);
}

async function createSlot(source: pg.Client, { name }: Stream): Promise<string> {
  await source.query(`set statement_timeout = ${SLOT_MS}`);
  try {
    const { rows } = await source.query<{ lsn: string }>(
      `select lsn::text from pg_create_logical_replication_slot($1, 'pgoutput')`,
      [name],
    );
    return rows[0]?.lsn as string;
  } catch (error) {
    if ((error as pg.DatabaseError).code !== '57014') throw error;
    throw new ReplicationError(
      'STREAM_BUSY',
      `A transaction in the source has been open for more than ${SLOT_MS / 1000} s, and a slot can only begin after it.`,
      'End it (pg_stat_activity tells which), then try again.',
      { cause: error },
    );
  } finally {
    await source.query('reset statement_timeout').catch(() => {});
  }
}

async function empty(source: pg.Client, target: pg.Client, stream: Stream): Promise<void> {
  const schema = targetSchemaOf(stream);
  const names = (await filledTables(source, target, stream)).map((table) => qualified(schema, table));
  if (names.length === 0) return;
  // Triggers that keep an app from emptying a table (an append-only ledger) do not mean us: these rows are a copy.
  await target.query('set local session_replication_role = replica');
  await target.query(`truncate ${names.join(', ')}`);
}

/** The tables of the target that the stream fills. */
async function filledTables(source: pg.Client, target: pg.Client, stream: Stream): Promise<string[]> {
  const chosen = chosenTables(stream, (await readTables(source, stream.schema)).keys());
  if (!stream.mapping) return chosen;
  // What a TRUNCATE of the source's would empty; without that word of the mapping, every table there is.
  const { truncated } = stream.mapping;
  if (truncated) return [...new Set(chosen.flatMap((table) => truncated(table)))];
  const there = await readTables(target, targetSchemaOf(stream));
  return chosenTables({ ...stream, tables: undefined }, there.keys());
}

/** One row per table to copy, with about how many rows there are: counted where it is quick, else what the planner believes. */
async function planCopy(
  source: pg.Client,
  target: pg.Client,
  stream: Stream,
  tables: readonly string[],
): Promise<void> {
  for (const table of tables) {
    const name = qualified(stream.schema, table);
    const { rows } = await source.query<{ known: number; bytes: string }>(
      'select reltuples as known, pg_table_size(oid)::text as bytes from pg_class where oid = $1::regclass',
      [name],
    );
    const { known, bytes } = rows[0]!;
    const quick = Number(bytes) < 32 << 20;
    const estimate =
      quick || known < 0
        ? (await source.query<{ n: string }>(`select count(*)::text as n from ${name}`)).rows[0]?.n
        : known;
    await target.query('insert into banyan_replication.backfill (stream, table_name, estimate) values ($1, $2, $3)', [
      stream.name,
      table,
      Math.round(Number(estimate)),
    ]);
  }
}

async function transaction(client: pg.Client, work: () => Promise<void>): Promise<void> {
  await client.query('begin');
  try {
    await work();
    await client.query('commit');
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  }
}
