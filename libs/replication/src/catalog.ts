import type pg from 'pg';
import { DEFAULT_EXCLUDE, type Stream } from './stream.js';

export interface Column {
  name: string;
  /** For a cast of text: without a length or precision, which would cut silently. */
  type: string;
  /** The function that turns a value into text. */
  output: string;
  notNull: boolean;
  hasDefault: boolean;
  /** Computed by the database: never written. */
  generated: boolean;
  /** `generated always as identity`: written on insert only. */
  identityAlways: boolean;
}

export interface Table {
  schema: string;
  name: string;
  columns: readonly Column[];
  /** Columns of the primary key, in its order; empty without one. */
  key: readonly string[];
  keyIsDeferrable: boolean;
  /** Unique or exclusion constraints besides the key: then the order of changes between rows matters. */
  hasOtherUnique: boolean;
  /** `d`efault, `f`ull, `n`othing, by `i`ndex. */
  identity: string;
  unlogged: boolean;
  mayPublish: boolean;
}

interface TableRow extends Omit<Table, 'schema' | 'columns'> {
  columns: Column[];
}

/**
 * The ordinary and partitioned tables of a schema, by name. Everything is asked in one query, because it is asked
 * again whenever a table's shape changes.
 */
export async function readTables(client: pg.ClientBase, schema: string): Promise<Map<string, Table>> {
  const { rows } = await client.query<TableRow>(
    `select c.relname as name, c.relreplident as identity, c.relpersistence = 'u' as unlogged,
            pg_has_role(c.relowner, 'usage') as "mayPublish",
            coalesce(k.key, '{}') as key, coalesce(not k.immediate, false) as "keyIsDeferrable",
            exists (select from pg_index i where i.indrelid = c.oid and (i.indisunique or i.indisexclusion)
                     and not i.indisprimary) as "hasOtherUnique",
            (select coalesce(json_agg(json_build_object(
                'name', a.attname,
                'type', format_type(a.atttypid, -1),
                'output', (select quote_ident(n.nspname) || '.' || quote_ident(p.proname) from pg_type t
                             join pg_proc p on p.oid = t.typoutput join pg_namespace n on n.oid = p.pronamespace
                            where t.oid = a.atttypid),
                'notNull', a.attnotnull, 'hasDefault', a.atthasdef or a.attidentity <> '',
                'generated', a.attgenerated <> '', 'identityAlways', a.attidentity = 'a') order by a.attnum), '[]')
               from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
       from pg_class c join pg_namespace s on s.oid = c.relnamespace
       left join lateral (
         select i.indimmediate as immediate, array_agg(a.attname::text order by u.place) as key
           from pg_index i, unnest(i.indkey::int2[]) with ordinality as u(attnum, place)
           join pg_attribute a on a.attnum = u.attnum
          where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid group by 1) k on true
      where s.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition
      order by 1`,
    [schema],
  );
  return new Map(rows.map((row) => [row.name, { schema, ...row }]));
}

/** The names of the tables that a stream carries, of those there are in its source. */
export function chosenTables(stream: Stream, there: Iterable<string>): string[] {
  const excluded = new Set<string>(stream.exclude ?? DEFAULT_EXCLUDE);
  const names = [...there];
  return (stream.tables ? names.filter((name) => stream.tables?.includes(name)) : names).filter(
    (name) => !excluded.has(name),
  );
}

export const targetSchemaOf = (stream: Stream): string => stream.targetSchema ?? stream.schema;
