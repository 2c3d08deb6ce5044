import type pg from 'pg';
import { type Table, chosenTables, readTables, targetSchemaOf } from './catalog.js';
import { connect, qualified, quoted } from './connection.js';
import { mapped } from './mapping.js';
import { ReplicationError, type ReplicationErrorCode, unreachable } from './errors.js';
import type { Stream } from './stream.js';

/* `origin = none`, which keeps the reverse direction free of echoes, came with 16. */
const OLDEST_SOURCE = 160_000;

/**
 * Everything that stands in the way of a stream, each with what to do about it; empty when it can be prepared. Looks at
 * both databases and changes nothing.
 */
export async function preflight(stream: Stream): Promise<ReplicationError[]> {
  const problems: ReplicationError[] = [];
  const problem = (code: ReplicationErrorCode, detail: string, next: string) =>
    void problems.push(new ReplicationError(code, detail, next));
  try {
    refuseBadName(stream);
  } catch (error) {
    problems.push(error as ReplicationError);
  }
  const source = await reach('source', stream.source, problems);
  const target = await reach('target', stream.target, problems);
  try {
    if (source) await checkServer(source, stream, problem);
    if (target) await checkTargetRole(target, problem);
    if (source && target) {
      await checkPlaces(source, target, stream, problem);
      await checkTables(source, target, stream, problem, problems);
    }
  } finally {
    for (const client of [source, target]) await client?.end().catch(() => {});
  }
  return problems;
}

/** A name goes into a slot, a publication and an origin; the server would refuse it later and less clearly. */
export function refuseBadName({ name }: Stream): void {
  if (/^[a-z0-9_]{1,50}$/.test(name)) return;
  throw new ReplicationError('NAME_INVALID', `${name} is no name for a stream.`, 'Use 1 to 50 of a-z, 0-9 and _.');
}

type Tell = (code: ReplicationErrorCode, detail: string, next: string) => void;

async function reach(
  side: 'source' | 'target',
  url: string,
  problems: ReplicationError[],
): Promise<pg.Client | undefined> {
  try {
    return await connect(url, { as: 'banyan:preflight' });
  } catch (error) {
    problems.push(unreachable(side, error));
    return undefined;
  }
}

async function checkServer(source: pg.Client, stream: Stream, problem: Tell): Promise<void> {
  const { rows } = await source.query<
    Record<'version' | 'senders', number> &
      Record<'wal' | 'shown', string> &
      Record<'may' | 'create' | 'free' | 'ours', boolean>
  >(
    `select current_setting('server_version_num')::int as version, current_setting('server_version') as shown,
            current_setting('wal_level') as wal,
            (select rolsuper or rolreplication from pg_roles where rolname = current_user) as may,
            has_database_privilege(current_database(), 'CREATE') as create,
            (select count(*) from pg_replication_slots) < current_setting('max_replication_slots')::int as free,
            exists (select from pg_replication_slots where slot_name = $1) as ours`,
    [stream.name],
  );
  const { version, shown, wal, may, create, free, ours } = rows[0]!;
  if (version < OLDEST_SOURCE)
    problem('SERVER_TOO_OLD', `The source is Postgres ${shown}.`, 'Postgres 16 or newer is needed.');
  if (wal !== 'logical')
    problem('WAL_LEVEL', `The source has wal_level = ${wal}.`, 'Set it to logical and restart that server.');
  if (!may) problem('PRIVILEGE', 'The role of the source may not replicate.', 'Run: alter role … replication.');
  if (!create)
    problem('PRIVILEGE', 'The role of the source may not make a publication.', 'Run: grant create on database … to ….');
  if (!free && !ours)
    problem(
      'NO_FREE_SLOT',
      'All replication slots of the source are taken.',
      'Drop one, or raise max_replication_slots.',
    );
}

async function checkTargetRole(target: pg.Client, problem: Tell): Promise<void> {
  const { rows } = await target.query<Record<'role' | 'origin' | 'create' | 'free', boolean>>(
    `select r.rolsuper or has_parameter_privilege(current_user, 'session_replication_role', 'SET') as role,
            has_function_privilege('pg_replication_origin_session_setup(text)', 'execute') and
            has_function_privilege('pg_replication_origin_create(text)', 'execute') as origin,
            has_database_privilege(current_database(), 'CREATE') or
            to_regnamespace('banyan_replication') is not null as create,
            (select count(*) from pg_replication_origin) < coalesce(
              current_setting('max_active_replication_origins', true), current_setting('max_replication_slots'))::int as free
       from pg_roles r where r.rolname = current_user`,
  );
  const { role, origin, create, free } = rows[0]!;
  if (!free)
    problem(
      'NO_FREE_SLOT',
      'All replication origins of the target are taken.',
      'Raise max_active_replication_origins (before Postgres 18: max_replication_slots), or drop one.',
    );
  if (!role)
    problem(
      'PRIVILEGE',
      'The role of the target may not set session_replication_role.',
      'Run: grant set on parameter session_replication_role to ….',
    );
  if (!origin)
    problem(
      'PRIVILEGE',
      'The role of the target may not use replication origins.',
      'Grant it execute on the pg_replication_origin_… functions.',
    );
  if (!create)
    problem('PRIVILEGE', 'The role of the target may not make a schema.', 'Run: grant create on database … to ….');
}

async function checkPlaces(source: pg.Client, target: pg.Client, stream: Stream, problem: Tell): Promise<void> {
  const place = async (client: pg.Client) => {
    const { rows } = await client.query<{ place: string }>(
      `select s.system_identifier || '/' || d.oid as place from pg_control_system() s, pg_database d where datname = current_database()`,
    );
    return rows[0]?.place;
  };
  if (stream.schema !== targetSchemaOf(stream)) return;
  const [from, to] = await Promise.all([place(source), place(target)].map((asked) => asked.catch(() => undefined)));
  if (from !== undefined && from === to)
    problem('SAME_PLACE', 'Source and target are the same schema of the same database.', 'Name another target.');
}

async function checkTables(
  source: pg.Client,
  target: pg.Client,
  stream: Stream,
  problem: Tell,
  problems: ReplicationError[],
): Promise<void> {
  const [from, to] = await Promise.all([readTables(source, stream.schema), readTables(target, targetSchemaOf(stream))]);
  for (const name of stream.tables ?? [])
    if (!from.has(name))
      problem(
        'TABLE_UNKNOWN',
        `The source has no table ${stream.schema}.${name}.`,
        'Leave it out, or mind the spelling.',
      );
  const chosen = chosenTables(stream, from.keys()).map((name) => from.get(name) as Table);
  if (chosen.length === 0 && !stream.tables)
    problem(
      'NO_TABLES',
      `There is nothing to copy in the schema ${stream.schema} of the source.`,
      'Name another schema.',
    );
  for (const table of chosen) checkSourceTable(table, problem);
  if (stream.mapping) return checkMapping(source, stream, chosen, to, problems);
  for (const table of chosen) checkTargetTable(table, to.get(table.name), targetSchemaOf(stream), problem);
}

function checkSourceTable(table: Table, problem: Tell): void {
  const name = `${table.schema}.${table.name}`;
  if (table.key.length === 0)
    problem(
      'NO_PRIMARY_KEY',
      `${name} has no primary key.`,
      'Give it one, or leave it out: published, its updates would fail.',
    );
  else if (table.keyIsDeferrable)
    problem(
      'NO_PRIMARY_KEY',
      `The primary key of ${name} is deferrable.`,
      'Make it not deferrable, or leave the table out.',
    );
  if (table.identity === 'n' || table.identity === 'i')
    problem(
      'REPLICA_IDENTITY',
      `${name} does not tell the log its primary key.`,
      `Run: alter table ${qualified(table.schema, table.name)} replica identity default.`,
    );
  if (table.unlogged)
    problem(
      'UNLOGGED',
      `${name} is unlogged: its changes are in no log.`,
      'Run: alter table … set logged, or leave it out.',
    );
  if (!table.mayPublish)
    problem('PRIVILEGE', `The role of the source does not own ${name}.`, 'Use the owner, or grant that role to it.');
}

function checkTargetTable(table: Table, there: Table | undefined, schema: string, problem: Tell): void {
  const name = `${schema}.${table.name}`;
  if (!there) {
    problem(
      'TARGET_TABLE_MISSING',
      `The target has no table ${name}.`,
      'Create it: pg_dump --schema-only makes the statements.',
    );
    return;
  }
  const has = new Set(there.columns.map((column) => column.name));
  const missing = table.columns.filter((column) => !column.generated && !has.has(column.name));
  if (missing.length > 0)
    problem(
      'TARGET_COLUMN_MISSING',
      `${name} of the target has no column ${missing.map((column) => column.name).join(', ')}.`,
      'Widen the target first.',
    );
  const given = new Set(table.columns.map((column) => column.name));
  const required = there.columns.filter(
    (column) => column.notNull && !column.hasDefault && !column.generated && !given.has(column.name),
  );
  if (required.length > 0)
    problem(
      'TARGET_COLUMN_REQUIRED',
      `${name} of the target needs ${required.map((column) => column.name).join(', ')}, which the source does not have.`,
      'Give it a default, or use a mapping.',
    );
  if (table.key.join() !== there.key.join() || there.keyIsDeferrable)
    problem(
      'TARGET_KEY',
      `${name} has the primary key (${there.key.join(', ')}) in the target and (${table.key.join(', ')}) in the source.`,
      'Make them equal, or use a mapping.',
    );
}

/** Tries the mapping on a row of each table: what it gives has to fit the target. */
async function checkMapping(
  source: pg.Client,
  stream: Stream,
  chosen: readonly Table[],
  to: ReadonlyMap<string, Table>,
  problems: ReplicationError[],
): Promise<void> {
  for (const table of chosen) {
    if (table.key.length === 0) continue;
    const { rows } = await source.query<Record<string, string | null>>(
      `select ${table.columns
        .filter(({ generated }) => !generated)
        .map(({ name, output }) => `textin(${output}(${quoted(name)})) as ${quoted(name)}`)
        .join(', ')} from ${qualified(table.schema, table.name)} limit 1`,
    );
    const row = rows[0];
    if (!row) continue;
    const key = Object.fromEntries(table.key.map((name) => [name, row[name]]));
    for (const [values, change] of [
      [row, 'put'],
      [key, 'delete'],
    ] as const) {
      try {
        for (const each of mapped(stream.mapping!, table.name, values, change))
          refuseUnfit(stream, each.table, each.row, to);
      } catch (error) {
        problems.push(error as ReplicationError);
      }
    }
  }
}

function refuseUnfit(stream: Stream, name: string, row: object, to: ReadonlyMap<string, Table>): void {
  const table = to.get(name);
  const next = 'Mend the mapping, or the target.';
  const shown = `${targetSchemaOf(stream)}.${name}`;
  if (!table)
    throw new ReplicationError('MAPPING', `The mapping gives rows for ${shown}, which the target does not have.`, next);
  if (table.key.length === 0)
    throw new ReplicationError('MAPPING', `${shown} of the target has no primary key.`, 'Give it one.');
  const unknown = Object.keys(row).filter((column) => !table.columns.some(({ name: known }) => known === column));
  if (unknown.length > 0)
    throw new ReplicationError(
      'MAPPING',
      `The mapping sets ${unknown.join(', ')} of ${shown}, which is not there.`,
      next,
    );
  const missing = table.key.filter((column) => (row as Record<string, unknown>)[column] == null);
  if (missing.length > 0)
    throw new ReplicationError(
      'MAPPING',
      `The mapping gives no ${missing.join(', ')} for ${shown}, whose key it is.`,
      next,
    );
}
