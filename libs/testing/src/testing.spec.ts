import pg from 'pg';
import { expect, inject, it } from 'vitest';
import { eventually } from './eventually.js';
import { createTestDatabase } from './test-database.js';

it('eventually waits for an answer, passing over errors and false', async () => {
  let tries = 0;
  const answer = await eventually(() => {
    tries++;
    if (tries === 1) throw new Error('not yet');
    return tries > 3 && 'there';
  });
  expect([answer, tries]).toEqual(['there', 4]);
  const never = eventually(() => expect(1).toBe(2), { timeoutMs: 50 });
  await expect(never).rejects.toThrow(/Not within 50 ms: expected 1 to be 2/);
});

it('a test database is a clone of its own', async () => {
  const [one, two] = await Promise.all([
    createTestDatabase(inject('adminUrl')),
    createTestDatabase(inject('adminUrl')),
  ]);
  await one
    .database('orders')
    .query(`insert into inbox (event_id, type, received_at) values (gen_random_uuid(), 'x', now())`);
  expect(await one.admin('select type from orders.inbox')).toEqual([{ type: 'x' }]);
  expect(await two.admin('select type from orders.inbox')).toEqual([]);
  await Promise.all([one.drop(), two.drop()]);
});

it('a connection that is left open fails the suite, and the database goes all the same', async () => {
  const test = await createTestDatabase(inject('adminUrl'), { contexts: ['catalog'] });
  const leak = new pg.Client({ connectionString: test.urls.catalog, application_name: 'forgotten' });
  leak.on('error', () => {});
  await leak.connect();
  await expect(test.drop()).rejects.toThrow(/Connections were left open:\nforgotten · banyan_catalog/);
  await expect(createAdmin(test.adminUrl)).rejects.toMatchObject({ code: '3D000' });
});

async function createAdmin(connectionString: string): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  await client.end();
}
