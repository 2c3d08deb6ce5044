import { contracts } from '@banyan/contracts';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SourceGraph, root } from './source-graph.js';
import { foreignSchemas, migrationSql, sourceSql } from './sql.js';

const contexts = contracts.map(({ name }) => name);
const banyan = SourceGraph.read();

describe('The SQL of a context', () => {
  it('names no other schema in its migrations', () => {
    const texts = migrationSql(contexts);
    expect(new Set(texts.map(({ context }) => context))).toEqual(new Set(contexts));
    expect(foreignSchemas(texts, contexts)).toEqual([]);
  });

  it('names no other schema in its code', () => {
    const texts = sourceSql(banyan);
    expect(texts.length).toBeGreaterThan(20);
    expect(foreignSchemas(texts, contexts)).toEqual([]);
  });
});

describe('The Prisma schema of a context', () => {
  it.each(contexts)('of %s maps its own schema only', (context) => {
    const text = readFileSync(join(root, 'prisma', context, 'schema.prisma'), 'utf8');
    const named = [...text.matchAll(/@@schema\("(\w+)"\)|schemas\s*=\s*\[([^\]]*)\]/g)].map(
      ([, model, source]) => model ?? source?.replaceAll('"', ''),
    );
    expect(new Set(named)).toEqual(new Set([context]));
  });
});

describe('The check above is seen to fail', () => {
  const file = 'libs/contexts/orders/src/seeded.ts';
  const inCode = (text: string) =>
    foreignSchemas(sourceSql(SourceGraph.empty().plus({ [file]: text })), contexts).map((line) => line.split(': ')[0]);

  it.each([
    ['a tagged query', 'prisma.$queryRaw`select 1 from inventory.stock_item where sku = ${sku}`'],
    ['a tagged statement', 'prisma.$executeRaw`update payments.payment set status = 1`'],
    ['a pool query', "db.query('delete from catalog.product where id = $1', [id])"],
    ['quoted names', 'db.query(`select * from "shipping"."shipment"`)'],
    ['a join', 'prisma.$queryRaw`select 1 from line l join inventory.stock_item s on s.sku = l.sku`'],
    ['a text that is used elsewhere', "const statement = 'select count(*) from identity.account';"],
    ['a changed search path', "db.query('set search_path to inventory')"],
    ['a dotted fragment', 'const joined = Prisma.sql`, inventory.stock_item s`'],
  ])('on %s', (_, text) => {
    expect(inCode(text)).toEqual([`${file}:1`]);
  });

  it.each([
    ['its own schema', 'prisma.$queryRaw`select 1 from orders.orders`'],
    ['an expression named like a context', 'prisma.$queryRaw`select 1 from orders where id = ${inventory.id}`'],
    ['names of events and jobs', "const names = ['inventory.StockReserved', 'payments.poll'];"],
    ['a comment', 'prisma.$queryRaw`select 1 -- as in inventory.stock_item\n from orders`'],
  ])('but not on %s', (_, text) => {
    expect(inCode(text)).toEqual([]);
  });

  it('on a migration', () => {
    const text = 'create view seen as select * from inventory.stock_item';
    expect(foreignSchemas([{ context: 'orders', where: 'seeded.sql', text }], contexts)).toEqual([
      'seeded.sql: orders reaches into inventory.stock_item',
    ]);
  });
});
