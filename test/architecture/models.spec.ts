import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { contextNames, projectRoot, testDatabase } from '@banyan/testing';
import { describe, expect, it } from 'vitest';

const test = testDatabase();

/* Part of every schema, written and read by SQL alone. */
const messaging = [
  '_prisma_migrations',
  'banyan_owner',
  'idempotency_key',
  'inbox',
  'outbox',
  'outbox_head',
  'outbox_stream',
  'saga',
];
/* Postgres types that Prisma has no word for; a model leaves such columns out, or says Unsupported. */
const unsupported = ['tsvector'];

const native: Record<string, string> = {
  Uuid: 'uuid',
  Text: 'text',
  VarChar: 'character varying',
  Char: 'character',
  Timestamptz: 'timestamp with time zone',
  Date: 'date',
  Json: 'json',
  JsonB: 'jsonb',
  SmallInt: 'smallint',
  Integer: 'integer',
  BigInt: 'bigint',
  ByteA: 'bytea',
  Inet: 'inet',
  Decimal: 'numeric',
};
const plain: Record<string, string> = {
  String: 'text',
  Int: 'integer',
  BigInt: 'bigint',
  Boolean: 'boolean',
  DateTime: 'timestamp(3) without time zone',
  Json: 'jsonb',
  Float: 'double precision',
  Decimal: 'numeric',
  Bytes: 'bytea',
};

type Tables = Record<string, { columns: Record<string, string>; key: string[] }>;

/** Tables as a Prisma schema describes them: `column: type`, with `?` where it may be null. */
function modelled(context: string): Tables {
  const text = readFileSync(join(projectRoot, 'prisma', context, 'schema.prisma'), 'utf8').replace(/\/\/.*$/gm, '');
  const blocks = [...text.matchAll(/^(model|enum|view)\s+(\w+)\s*\{([^}]*)\}/gm)];
  const models = new Set(blocks.map(([, , name]) => name));
  const tables: Tables = {};
  for (const [, kind, name, body = ''] of blocks) {
    if (kind !== 'model') throw new Error(`${context}: ${kind} ${name}: only models are compared so far`);
    if (!body.includes(`@@schema("${context}")`))
      throw new Error(`${context}: model ${name} is not in schema ${context}`);
    const columns: Record<string, string> = {};
    const columnOf: Record<string, string> = {};
    let key =
      body
        .match(/@@id\(\[([^\]]+)\]/)?.[1]
        ?.split(',')
        .map((field) => field.trim()) ?? [];
    for (const line of body.split('\n')) {
      const field = line.match(/^\s*(\w+)\s+(\w+)(?:\("([^"]+)"\))?(\[\])?(\?)?(.*)$/);
      if (!field) continue;
      const [, fieldName = '', type = '', raw, list, optional = '', attributes = ''] = field;
      if (models.has(type)) continue; // a relation has no column
      const [, word, argument] = attributes.match(/@db\.(\w+)(?:\(([^)]*)\))?/) ?? [];
      const base = raw ?? (word ? native[word] : plain[type]);
      if (!base) throw new Error(`${context}.${name}.${fieldName}: unknown type ${type} ${word ?? ''}`);
      const column = attributes.match(/@map\("([^"]+)"\)/)?.[1] ?? fieldName;
      columnOf[fieldName] = column;
      const sized = argument === undefined ? base : base.replace(/^(\S+)/, `$1(${argument.replaceAll(' ', '')})`);
      columns[column] =
        `${word === 'VarChar' && argument ? `character varying(${argument})` : sized}${list ?? ''}${optional}`;
      if (/@id\b/.test(attributes)) key = [fieldName];
    }
    const table = body.match(/@@map\("([^"]+)"\)/)?.[1] ?? name ?? '';
    tables[table] = { columns, key: key.map((field) => columnOf[field] ?? field) };
  }
  return tables;
}

/** The same, as the migrated database has them. */
async function migrated(context: string): Promise<Tables> {
  const rows = await test.admin<{ table: string; column: string; type: string; nullable: boolean; key: number | null }>(
    `select c.relname as table, a.attname as column, format_type(a.atttypid, a.atttypmod) as type,
            not a.attnotnull as nullable, array_position(k.conkey, a.attnum) as key
       from pg_attribute a join pg_class c on c.oid = a.attrelid
       left join pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
      where c.relnamespace = $1::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
      order by a.attnum`,
    [context],
  );
  const tables: Tables = {};
  for (const { table, column, type, nullable, key } of rows) {
    if (messaging.includes(table)) continue;
    const { columns, key: keys } = (tables[table] ??= { columns: {}, key: [] });
    if (key !== null) keys[key - 1] = column;
    if (!unsupported.includes(type)) columns[column] = `${type}${nullable ? '?' : ''}`;
  }
  return tables;
}

describe.each(contextNames)('the Prisma models of %s', (context) => {
  it('are the tables of the migrated database', async () => {
    const models = modelled(context);
    for (const { columns } of Object.values(models))
      for (const [column, type] of Object.entries(columns))
        if (unsupported.includes(type.replace('?', ''))) delete columns[column];
    const tables = await migrated(context);
    expect(Object.keys(tables)).not.toHaveLength(0);
    expect(models).toEqual(tables);
  });
});
