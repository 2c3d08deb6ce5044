import { contextNames, testDatabase } from '@banyan/testing';
import { describe, expect, it } from 'vitest';

const test = testDatabase();

describe.each(contextNames)('the role of %s', (context) => {
  it('reads and writes its own schema', async () => {
    const db = test.database(context);
    expect((await db.query('select current_user, current_schema() as schema')).rows).toEqual([
      { current_user: `banyan_${context}`, schema: context },
    ]);
    await db.query('insert into inbox (event_id, type, received_at) values (gen_random_uuid(), $1, now())', ['x.X']);
    await expect(db.query('create table intruder ()')).rejects.toMatchObject({ code: '42501' });
    await expect(db.query('create table public.intruder ()')).rejects.toMatchObject({ code: '42501' });
  });

  it.each(contextNames.filter((other) => other !== context))('cannot reach %s', async (other) => {
    const db = test.database(context);
    const tables = await test.admin<{ table_name: string }>(
      'select table_name from information_schema.tables where table_schema = $1',
      [other],
    );
    expect(tables.length).toBeGreaterThan(5);
    for (const { table_name: table } of tables) {
      await expect(db.query(`select from ${other}.${table}`)).rejects.toMatchObject({ code: '42501' });
      await expect(db.query(`delete from ${other}.${table}`)).rejects.toMatchObject({ code: '42501' });
    }
    await expect(db.query(`select ${other}.banyan_emit('[]')`)).rejects.toMatchObject({ code: '42501' });
    await expect(db.query(`set role banyan_${other}`)).rejects.toMatchObject({ code: '42501' });
  });
});
