import type { Side } from '@banyan/kernel';
import { eventually, testDatabase } from '@banyan/testing';
import { afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { applied } from './applied.js';
import { streamName } from './protocol/index.js';

const test = testDatabase({ contexts: ['inventory'] });
const has = (epoch: number, lsn?: string) => applied(test.database('inventory'), { side: 'service', epoch, lsn });
const epochHere = (epoch: number) => test.admin('update inventory.banyan_owner set epoch = $1', [epoch]);

it('without a bridge only what came before this side was opened is sure to be here', async () => {
  await epochHere(3);
  expect(await has(2)).toBe(true);
  expect(await has(3)).toBe(false);
  expect(await has(3, '0/1')).toBe(false);
});

beforeAll(async () => {
  await test.admin('create schema if not exists banyan_replication');
});
const bridged = async () => {
  await test.admin('create table if not exists banyan_replication.mark (stream text primary key, lsn pg_lsn)');
  await test.admin('grant usage on schema banyan_replication to public');
  await test.admin('grant select on banyan_replication.mark to public');
};
const mark = (from: Side, lsn: string) =>
  test.admin(
    `insert into banyan_replication.mark values ($1, $2) on conflict (stream) do update set lsn = excluded.lsn`,
    [streamName('inventory', from, 'postgres://localhost/another'), lsn],
  );

it('with a bridge, what it has applied is', async () => {
  await bridged();
  await epochHere(3);
  await mark('service', 'A/10');
  expect(await has(3, 'A/10')).toBe(true);
  expect(await has(3, '9/FFFFFFFF')).toBe(true);
  expect(await has(3, 'A/11')).toBe(false);
  expect(await has(3)).toBe(false);
  // The other direction's mark says nothing.
  await mark('monolith', 'F/0');
  expect(await has(3, 'A/11')).toBe(false);
});

it('a mark that arrives while it is waited for counts', async () => {
  await bridged();
  await mark('service', 'B/1');
  const db = test.database('inventory');
  const looks = vi.spyOn(db, 'query');
  // Its 50 ms do not pass.
  vi.spyOn(performance, 'now').mockReturnValue(performance.now());
  const waiting = applied(db, { side: 'service', epoch: 3, lsn: 'B/2' });
  // At the owner's row, at the mark as it was, and at the mark again.
  await eventually(() => looks.mock.calls.length > 2);
  await mark('service', 'B/2');
  expect(await waiting).toBe(true);
});

beforeEach(() => epochHere(1));
afterEach(() => {
  vi.restoreAllMocks();
});
