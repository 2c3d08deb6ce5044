import { Database, DatabaseUnavailableError, StatementTimeoutError, databaseFailure } from '@banyan/platform/database';
import { testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PrismaClient } from '../../libs/contexts/inventory/src/generated/client.js';

// A Prisma client on a Database follows the ambient transaction. Shown on the client of one context.
const test = testDatabase({ contexts: ['inventory'] });
let db: Database;
let prisma: PrismaClient;

const row = (sku: string) => ({
  sku,
  onHand: 1n,
  reserved: 0n,
  sold: 0n,
  received: 1n,
  version: 1n,
  updatedAt: new Date(),
});
const add = (sku: string) => prisma.stockItem.createMany({ data: row(sku) });
const skus = async () => (await prisma.stockItem.findMany({ orderBy: { sku: 'asc' } })).map((item) => item.sku);
const seen = async () =>
  (await test.admin<{ sku: string }>('select sku from inventory.stock_item')).map(({ sku }) => sku);

beforeAll(() => {
  // Many wait for a connection at once here, and may do so for as long as it takes.
  db = new Database({ context: 'inventory', url: test.urls['inventory']!, max: 10, connectTimeoutMs: 60_000 });
  prisma = new PrismaClient({ adapter: db.prismaAdapter() });
});
afterAll(() => db?.close()); // hooks run in reverse: before the test database is dropped
beforeEach(() => test.admin('truncate inventory.stock_item'));

describe('a Prisma client', () => {
  it('runs in the ambient transaction, model calls and raw ones', async () => {
    await db.transaction(undefined, async () => {
      await add('A');
      await prisma.$executeRaw`update stock_item set on_hand = 7, received = 7 where sku = ${'A'}`;
      expect(await prisma.stockItem.findFirst({ where: { sku: 'A' } })).toMatchObject({ onHand: 7n });
      expect((await db.query('select on_hand from stock_item')).rows).toEqual([{ on_hand: 7 }]);
      expect(await seen()).toEqual([]);
      expect(await db.outsideTransaction(skus)).toEqual([]);
    });
    expect(await skus()).toEqual(['A']);
  });

  it('is in the transaction even when its lazy promise is handed out of the function unawaited', async () => {
    const refused = db.transaction(undefined, (tx) => {
      tx.atCommit('select 1/0');
      return add('A');
    });
    await expect(refused).rejects.toMatchObject({ code: '22012' });
    expect(await seen()).toEqual([]);
    await add('B');
    await db.transaction(undefined, async () => {
      await prisma.stockItem.deleteMany();
      expect(await db.outsideTransaction(() => prisma.stockItem.count())).toBe(1);
    });
  });

  it('loses what it wrote when the transaction throws', async () => {
    const lost = db.transaction(undefined, async () => {
      await add('A');
      throw new Error('no');
    });
    await expect(lost).rejects.toThrow('no');
    expect(await seen()).toEqual([]);
  });

  it('serves many transactions and callers outside of them at once, each in its own', async () => {
    const work = Array.from({ length: 100 }, async (_, i) => {
      if (i % 2) return expect((await skus()).filter((sku) => sku.startsWith('X'))).toEqual([]);
      const rolledBack = db.transaction(undefined, async () => {
        await add(`X${i}`);
        await new Promise((resolve) => setImmediate(resolve));
        expect(await skus()).toEqual([`X${i}`]);
        const own = await prisma.$queryRaw<{ sku: string }[]>`select sku from stock_item where sku = ${`X${i}`}`;
        expect(own).toHaveLength(1);
        throw new Error('no');
      });
      await expect(rolledBack).rejects.toThrow('no');
    });
    await Promise.all(work);
    expect(await seen()).toEqual([]);
  });

  it('may not open a transaction of its own inside of one', async () => {
    await db.transaction(undefined, async () => {
      await expect(prisma.$transaction(async () => {})).rejects.toThrow('A second connection was asked for');
      await expect(prisma.$transaction([prisma.stockItem.count(), prisma.stockItem.count()])).rejects.toThrow(
        'A second connection was asked for',
      );
    });
  });

  it('lets our errors be recognised', async () => {
    const cut = prisma.$queryRaw`select pg_terminate_backend(pg_backend_pid())`;
    expect(databaseFailure(await cut.catch((error: unknown) => error))).toBeInstanceOf(DatabaseUnavailableError);
    const slow = db.transaction(undefined, () => prisma.$queryRaw`select 1 from pg_sleep(5)`, {
      statementTimeoutMs: 50,
    });
    await expect(slow).rejects.toBeInstanceOf(StatementTimeoutError);
    await add('A');
    await expect(add('A')).rejects.toMatchObject({ code: 'P2002' });
  });

  it('sends each text once and runs it prepared', async () => {
    await skus();
    const before = db.statementsExecuted();
    await skus();
    expect(db.statementsExecuted() - before).toBe(1);
    const { rows } = await db.query(
      `select from pg_prepared_statements where statement like 'SELECT%"stock_item"%ORDER BY%'`,
    );
    expect(rows).toHaveLength(1);
  });
});
