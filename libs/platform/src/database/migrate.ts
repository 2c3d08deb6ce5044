import { createHash, createHmac, randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';

export type Side = 'monolith' | 'service';

export interface ContextDatabasesOptions {
  /** A URL that may create schemas and roles; its password is also the secret that the roles' passwords derive from. */
  adminUrl: string;
  contexts: readonly string[];
  /** Whose databases these are. The monolith's start open at epoch 1, a service's closed at epoch 0. */
  side: Side;
  /** The folder that holds `_messaging` and one folder per context. */
  migrationsDir: string;
  /** Contexts that live elsewhere: their URL is used as it is, and no role is made. */
  overrides?: Readonly<Record<string, string | undefined>>;
}

export interface MigrateOptions {
  adminUrl: string;
  /** The schema to bring up to date; it is created when missing. */
  context: string;
  side: Side;
  /** Folders of `<timestamp>_<name>/migration.sql`, merged in the order of their names. */
  folders: readonly string[];
  /** Make the role `banyan_<context>` with rights on this schema only (default), or leave roles alone. */
  role?: boolean;
}

export interface Migration {
  name: string;
  checksum: string;
  sql: string;
}

/** A migration failed or was edited after it had been applied; the message says which, and what to do. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError';
}

/* One lock for all contexts of a database: the keys are ours by the name 'banyan'. */
const LOCK = `hashtextextended('banyan.migrate', 0)`;
/* Grows when the grants or the shape of what is set up below change, so that databases get them at the next start. */
const SETUP_VERSION = 2;

/**
 * Brings every context's schema, role and migrations up to date and returns one URL per context, with that context's
 * role in it. Instances that start together wait for one another; when nothing is to do it is one query (a few ms).
 */
export async function ensureContextDatabases(options: ContextDatabasesOptions): Promise<Record<string, string>> {
  const { adminUrl, contexts, side, migrationsDir, overrides = {} } = options;
  const folders = (context: string) => [join(migrationsDir, '_messaging'), join(migrationsDir, context)];
  const ours = contexts.filter((context) => !overrides[context]);
  await bringUpToDate(
    adminUrl,
    ours.map((context) => ({ adminUrl, context, side, folders: folders(context) })),
  );
  const urls: Record<string, string> = {};
  for (const context of contexts) {
    const override = overrides[context];
    if (override) await migrate({ adminUrl: override, context, side, folders: folders(context), role: false });
    urls[context] = override ?? roleUrl(adminUrl, context);
  }
  return urls;
}

/** Brings one context's schema up to date. Applied migrations are never run again; an edited one is refused. */
export async function migrate(options: MigrateOptions): Promise<void> {
  await bringUpToDate(options.adminUrl, [options]);
}

/**
 * A schema whose tables a library makes by itself: the role `banyan_<name>` owns it and reaches nothing else.
 * Returns the role's URL.
 */
export async function ensureOwnedSchema(adminUrl: string, name: string): Promise<string> {
  const client = new pg.Client({ connectionString: adminUrl, application_name: 'banyan:migrate' });
  client.on('error', () => {}); // told by the query that runs
  await client.connect();
  try {
    // Names the password too: the role has to follow a change of the admin URL's.
    const stamp = `banyan ${createHash('sha256').update(rolePassword(adminUrl, name)).digest('hex')}`;
    const { rows } = await client.query<{ stamp: string | null }>(
      `select obj_description(n.oid, 'pg_namespace') as stamp from pg_namespace n
        where n.nspname = $1 and exists (select from pg_roles where rolname = $2)`,
      [name, roleOf(name)],
    );
    if (rows[0]?.stamp === stamp) return roleUrl(adminUrl, name);
    await client.query(`select pg_advisory_lock(${LOCK})`);
    await ensureLogin(client, adminUrl, name);
    const [schema, role] = [client.escapeIdentifier(name), client.escapeIdentifier(roleOf(name))];
    // BullMQ says "create schema if not exists" first, which Postgres allows only to who may create schemas at all.
    await client.query(`
      create schema if not exists ${schema};
      grant create on database ${client.escapeIdentifier(client.database ?? '')} to ${role};
      grant ${role} to current_user;
      alter schema ${schema} owner to ${role};
      comment on schema ${schema} is ${client.escapeLiteral(stamp)}`);
    return roleUrl(adminUrl, name);
  } finally {
    await client.end();
  }
}

/** The URL of a context's role in the database of `adminUrl`. */
export function roleUrl(adminUrl: string, context: string): string {
  const url = new URL(adminUrl);
  url.username = roleOf(context);
  url.password = rolePassword(adminUrl, context);
  return url.href;
}

export const roleOf = (context: string): string => `banyan_${context}`;

/** Derived, not stored, so that every instance that knows the admin URL agrees on it. */
function rolePassword(adminUrl: string, context: string): string {
  const secret = decodeURIComponent(new URL(adminUrl).password);
  if (!secret)
    throw new MigrationError(
      'DATABASE_URL has no password, and the passwords of the context roles derive from it. ' +
        'Add one, or set <CONTEXT>_DATABASE_URL for every context.',
    );
  return createHmac('sha256', secret)
    .update(`banyan:role:${roleOf(context)}`)
    .digest('base64url');
}

/** All migrations of `folders` in the order they are applied. A folder that does not exist is an empty one. */
export async function readMigrations(folders: readonly string[]): Promise<Migration[]> {
  const perFolder = await Promise.all(
    folders.map(async (folder) => {
      const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
      const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
      return Promise.all(
        names.map(async (name) => {
          // A checkout on Windows may have turned the line ends; that is no edit.
          const sql = (await readFile(join(folder, name, 'migration.sql'), 'utf8')).replaceAll('\r\n', '\n');
          return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
        }),
      );
    }),
  );
  const migrations = perFolder.flat().sort((a, b) => (a.name < b.name ? -1 : 1));
  migrations.forEach(({ name }, i) => {
    if (migrations[i + 1]?.name === name) throw new MigrationError(`Two migrations are called ${name}`);
  });
  return migrations;
}

interface Plan extends MigrateOptions {
  migrations: Migration[];
  /** What the schema's comment says when all of this is in place. */
  stamp: string;
}

async function bringUpToDate(adminUrl: string, contexts: readonly MigrateOptions[]): Promise<void> {
  if (contexts.length === 0) return;
  const plans = await Promise.all(
    contexts.map(async (options): Promise<Plan> => {
      const migrations = await readMigrations(options.folders);
      const password = options.role === false ? '' : rolePassword(adminUrl, options.context);
      const parts = [SETUP_VERSION, options.side, password, ...migrations.map((m) => `${m.name} ${m.checksum}`)];
      return { ...options, migrations, stamp: `banyan ${createHash('sha256').update(parts.join('\n')).digest('hex')}` };
    }),
  );
  const client = new pg.Client({ connectionString: adminUrl, application_name: 'banyan:migrate' });
  client.on('error', () => {}); // told by the query that runs
  await client.connect();
  try {
    if ((await outdated(client, plans)).length === 0) return;
    await client.query(`select pg_advisory_lock(${LOCK})`);
    for (const plan of await outdated(client, plans)) await apply(client, plan);
  } finally {
    await client.end(); // and with it the lock
  }
}

/**
 * The plans that are not in place yet. The stamp is the schema's comment, written in the same transaction as what it
 * stands for. It moves along in a dump or a template; roles do not, so they are looked for.
 */
async function outdated(client: pg.Client, plans: readonly Plan[]): Promise<Plan[]> {
  const { rows } = await client.query<{ stamp: string; has_role: boolean; schema: string }>(
    `select n.nspname as schema, obj_description(n.oid, 'pg_namespace') as stamp,
            exists (select from pg_roles r where r.rolname = 'banyan_' || n.nspname) as has_role
       from pg_namespace n where n.nspname = any($1)`,
    [plans.map((plan) => plan.context)],
  );
  const found = new Map(rows.map((row) => [row.schema, row]));
  return plans.filter((plan) => {
    const row = found.get(plan.context);
    return !row || row.stamp !== plan.stamp || (plan.role !== false && !row.has_role);
  });
}

async function apply(client: pg.Client, plan: Plan): Promise<void> {
  const schema = client.escapeIdentifier(plan.context);
  await client.query(`
    create schema if not exists ${schema};
    create table if not exists ${schema}._prisma_migrations (
      id varchar(36) primary key,
      checksum varchar(64) not null,
      finished_at timestamptz,
      migration_name varchar(255) not null,
      logs text,
      rolled_back_at timestamptz,
      started_at timestamptz not null default now(),
      applied_steps_count integer not null default 0
    )`);
  const { rows } = await client.query<{ migration_name: string; checksum: string }>(
    `select migration_name, checksum from ${schema}._prisma_migrations
      where finished_at is not null and rolled_back_at is null`,
  );
  const applied = new Map(rows.map((row) => [row.migration_name, row.checksum]));
  for (const migration of plan.migrations) {
    const checksum = applied.get(migration.name);
    if (checksum === undefined) await applyOne(client, plan.context, migration);
    else if (checksum !== migration.checksum)
      throw new MigrationError(
        `Migration ${migration.name} of ${plan.context} was edited after it had been applied here. ` +
          'Undo the edit and put the change into a new migration.',
      );
  }
  if (plan.role !== false) await ensureRole(client, plan);
  const open = plan.side === 'monolith';
  const owned = await hasOwner(client, plan.context);
  await inTransaction(client, async () => {
    if (owned)
      await client.query(
        `insert into ${schema}.banyan_owner (side, open, epoch, min_epoch, changed_at)
         values ($1, $2, $3, 0, now()) on conflict do nothing`,
        [plan.side, open, open ? 1 : 0],
      );
    await client.query(`comment on schema ${schema} is ${client.escapeLiteral(plan.stamp)}`);
  });
}

async function applyOne(client: pg.Client, context: string, migration: Migration): Promise<void> {
  const schema = client.escapeIdentifier(context);
  try {
    await inTransaction(client, async () => {
      await client.query(`set local search_path = ${schema}`);
      await client.query(migration.sql);
      await client.query(
        `insert into ${schema}._prisma_migrations (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
         values ($1, $2, $3, now(), clock_timestamp(), 1)`,
        [randomUUID(), migration.checksum, migration.name],
      );
    });
  } catch (error) {
    throw new MigrationError(`Migration ${migration.name} of ${context} failed: ${place(migration, error)}`, {
      cause: error,
    });
  }
}

/** The message of Postgres, with the line of the file that it speaks of. */
function place({ sql }: Migration, error: unknown): string {
  const { message, position } = error as pg.DatabaseError;
  return position ? `${message} (line ${sql.slice(0, Number(position) - 1).split('\n').length})` : message;
}

/** The role may log in, and names resolve in its own schema. */
async function ensureLogin(client: pg.Client, adminUrl: string, context: string): Promise<void> {
  const role = client.escapeIdentifier(roleOf(context));
  const login = `with login nosuperuser nocreatedb nocreaterole password ${client.escapeLiteral(rolePassword(adminUrl, context))}`;
  // Roles belong to the whole cluster, but the lock is this database's: another database may be at the same role now.
  await retryOnRace(async () => {
    const { rowCount } = await client.query('select from pg_roles where rolname = $1', [roleOf(context)]);
    await client.query(`${rowCount ? 'alter' : 'create'} role ${role} ${login}`);
    await client.query(`alter role ${role} set search_path = ${client.escapeIdentifier(context)}`);
  });
}

/** Who owns a context is decided by others: its role runs the fence, which reads, and can move nothing. */
const OWNER_MOVES = ['banyan_close', 'banyan_open', 'banyan_bar', 'banyan_reopen'];

/** The context's role: it may log in, and read and write the rows of its own schema, and nothing else. */
async function ensureRole(client: pg.Client, { adminUrl, context }: Plan): Promise<void> {
  const schema = client.escapeIdentifier(context);
  const role = client.escapeIdentifier(roleOf(context));
  await ensureLogin(client, adminUrl, context);
  const database = client.escapeIdentifier(client.database ?? '');
  await client.query(`
    revoke create on schema public from public;
    revoke temporary on database ${database} from public;
    revoke all on schema ${schema} from public;
    grant usage on schema ${schema} to ${role};
    grant select, insert, update, delete on all tables in schema ${schema} to ${role};
    revoke insert, update, delete on ${schema}._prisma_migrations from ${role};
    grant usage, select on all sequences in schema ${schema} to ${role};
    grant execute on all functions in schema ${schema} to ${role};
    revoke execute on all functions in schema ${schema} from public;
    alter default privileges in schema ${schema} grant select, insert, update, delete on tables to ${role};
    alter default privileges in schema ${schema} grant usage, select on sequences to ${role};
    alter default privileges in schema ${schema} grant execute on functions to ${role};
    ${await keptFromRole(client, context, role)}`);
}

/** Comes after the grants on everything, in the same transaction. */
async function keptFromRole(client: pg.Client, context: string, role: string): Promise<string> {
  if (!(await hasOwner(client, context))) return '';
  const { rows } = await client.query<{ signature: string }>(
    'select oid::regprocedure::text as signature from pg_proc where pronamespace = $1::regnamespace and proname = any($2)',
    [client.escapeIdentifier(context), OWNER_MOVES],
  );
  return [
    `revoke insert, update, delete on ${client.escapeIdentifier(context)}.banyan_owner from ${role};`,
    ...rows.map(({ signature }) => `revoke execute on function ${signature} from ${role}, public;`),
  ].join('\n');
}

/** Schemas of contexts have an owner; the control plane's own has none. */
async function hasOwner(client: pg.Client, context: string): Promise<boolean> {
  const table = `${client.escapeIdentifier(context)}.banyan_owner`;
  const { rows } = await client.query<{ found: boolean }>('select to_regclass($1) is not null as found', [table]);
  return rows[0]?.found === true;
}

async function retryOnRace(step: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await step();
    } catch (error) {
      const { code, message } = error as pg.DatabaseError;
      const race = code === '42710' || code === '23505' || /tuple concurrently (updated|deleted)/.test(message);
      if (!race || attempt === 20) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10 * attempt * Math.random()));
    }
  }
}

async function inTransaction(client: pg.Client, work: () => Promise<void>): Promise<void> {
  await client.query('begin');
  try {
    await work();
    await client.query('commit');
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  }
}
