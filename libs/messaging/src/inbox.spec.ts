import { randomUUID } from 'node:crypto';
import { event, newId } from '@banyan/kernel';
import { testDatabase } from '@banyan/testing';
import { beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import type { EventEnvelope } from './envelope.js';
import { Inbox, idFloor } from './inbox.js';
import { UnitOfWork } from './unit-of-work.js';

const test = testDatabase({ contexts: ['orders'] });
const told = { ...event(1, 'thing', z.strictObject({ n: z.int() })), name: 'inventory.Told' };
let effects: () => Promise<number[]>;

function inboxWith(react: (n: number) => Promise<void> | void = () => {}) {
  const db = test.database('orders');
  const unit = new UnitOfWork(
    'orders',
    db,
    'monolith',
    () => [],
    () => {},
  );
  return new Inbox(unit, [
    {
      event: told,
      run: async ({ data }) => {
        const { n } = data as { n: number };
        await db.query('insert into effect (n) values ($1)', [n]);
        await react(n);
      },
    },
  ]);
}

function chain(length: number): EventEnvelope[] {
  const subject = `thing/${randomUUID()}`;
  const ids = Array.from({ length }, () => newId());
  return ids.map((id, i) => ({
    specversion: '1.0',
    id,
    source: '/banyan/inventory',
    type: 'inventory.Told',
    subject,
    time: new Date().toISOString(),
    datacontenttype: 'application/json',
    data: { n: i + 1 },
    aggregateversion: i + 1,
    previous: ids[i - 1] ?? null,
  }));
}
const verdicts = async (inbox: Inbox, events: EventEnvelope[]) =>
  (await inbox.receive(events)).map(({ verdict }) => verdict);

beforeAll(async () => {
  await test.admin('create table orders.effect (n int, seq bigserial)');
  await test.admin('grant all on orders.effect to banyan_orders');
  await test.admin('grant usage on all sequences in schema orders to banyan_orders');
  effects = async () =>
    (await test.admin<{ n: number }>('delete from orders.effect returning n')).map(({ n }) => n).sort();
});

it('an event that comes twice, ten times, at once: one effect', async () => {
  const inbox = inboxWith();
  const events = chain(1);
  const all = await Promise.all(Array.from({ length: 10 }, () => verdicts(inbox, events)));
  expect(all.flat().filter((verdict) => verdict === 'applied')).toHaveLength(1);
  expect(await verdicts(inbox, events)).toEqual(['duplicate']);
  expect(await effects()).toEqual([1]);
});

it('an event whose predecessor is missing waits; others go on', async () => {
  const inbox = inboxWith();
  const [first, second, third] = chain(3) as [EventEnvelope, EventEnvelope, EventEnvelope];
  const other = chain(1);
  expect(await verdicts(inbox, [second, third, ...other])).toEqual(['gap', 'gap', 'applied']);
  expect(await verdicts(inbox, [first, second, third])).toEqual(['applied', 'applied', 'applied']);
  expect(await effects()).toEqual([1, 1, 2, 3]);
});

it('one that fails leaves neither effect nor inbox row, its followers wait, others are applied', async () => {
  let broken = true;
  const inbox = inboxWith((n) => {
    if (broken && n === 2) throw new Error('broken');
  });
  const events = chain(3);
  const other = chain(1);
  expect(await inbox.receive([...events, ...other])).toMatchObject([
    { verdict: 'applied' },
    { verdict: 'failed', error: 'broken' },
    { verdict: 'gap' },
    { verdict: 'applied' },
  ]);
  expect(await effects()).toEqual([1, 1]);
  broken = false;
  expect(await verdicts(inbox, events)).toEqual(['duplicate', 'applied', 'applied']);
  expect(await effects()).toEqual([2, 3]);
});

it('a predecessor older than the inbox remembers counts as received', async () => {
  const [only] = chain(1) as [EventEnvelope];
  const longAgo = idFloor(Date.now() - 40 * 24 * 3600 * 1000);
  expect(await verdicts(inboxWith(), [{ ...only, previous: longAgo }])).toEqual(['applied']);
  await effects();
});

it('takes nothing while the other side owns the context', async () => {
  await test.admin('update orders.banyan_owner set open = false');
  try {
    await expect(inboxWith().receive(chain(2))).rejects.toMatchObject({ code: 'CONTEXT_MOVED' });
    const [receipt] = await inboxWith()
      .receive(chain(1))
      .catch(() => [undefined]);
    expect(receipt?.verdict).not.toBe('applied');
    expect(await effects()).toEqual([]);
  } finally {
    await test.admin('update orders.banyan_owner set open = true');
  }
});
