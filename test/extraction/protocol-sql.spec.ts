import { type OwnerRow, bar, close, open, reopen } from '@banyan/extraction/protocol';
import { eventually, testDatabase } from '@banyan/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

const test = testDatabase({ contexts: ['inventory'] });
const slot = `banyan_protocol_spec_${process.pid}`;
const patient = { timeoutMs: 20_000 };

const row = async (): Promise<OwnerRow> => {
  const [owner] = await test.admin<{ side: 'monolith'; open: boolean; epoch: string; min_epoch: string }>(
    'select side, open, epoch, min_epoch from inventory.banyan_owner',
  );
  return { side: owner!.side, open: owner!.open, epoch: Number(owner!.epoch), minEpoch: Number(owner!.min_epoch) };
};
const put = ({ side, open: isOpen, epoch, minEpoch }: OwnerRow) =>
  test.admin('update inventory.banyan_owner set side = $1, open = $2, epoch = $3, min_epoch = $4', [
    side,
    isOpen,
    epoch,
    minEpoch,
  ]);
const isWaitedFor = async () => {
  const waits = `select from pg_locks l join pg_database d on d.oid = l.database
    where d.datname = current_database() and locktype = 'advisory' and not granted`;
  return (await test.admin(waits)).length > 0;
};
const call = async (text: string, values: unknown[]) => (await test.admin<{ r: unknown }>(text, values))[0]!.r;

const side = fc.constantFrom('monolith' as const, 'service' as const);
// Small numbers, so that they meet.
const number = fc.integer({ min: 0, max: 6 });
const rows = fc.record({ side, open: fc.boolean(), epoch: number, minEpoch: number });

describe('The functions in the database do what the searched ones do', () => {
  const agree = (sql: string, args: (n: number, to: OwnerRow['side']) => unknown[], pure: Pure) =>
    fc.assert(
      fc.asyncProperty(rows, number, side, async (before, n, to) => {
        await put(before);
        const answer = await call(sql, args(n, to));
        const [expectedAnswer, after] = pure(before, n, to);
        expect(answer).toEqual(expectedAnswer);
        expect(await row()).toEqual(after ?? before);
      }),
      { numRuns: 300 },
    );
  type Pure = (row: OwnerRow, n: number, to: OwnerRow['side']) => [unknown, OwnerRow | null];

  it('close', () =>
    agree(
      'select inventory.banyan_close($1, $2) as r',
      (n, to) => [n, to],
      (before, n, to) => {
        const closed = close(before, n, to);
        return [closed && String(closed.message.epoch), closed && closed.row];
      },
    ));
  it.each([
    ['open', open],
    ['bar', bar],
    ['reopen', reopen],
  ] as const)('%s', (name, pure) =>
    agree(
      `select inventory.banyan_${name}($1) as r`,
      (n) => [n],
      (before, n) => {
        const after = pure(before, n);
        return [after !== null, after];
      },
    ),
  );
});

describe('The role of a context', () => {
  it.each([
    ['banyan_close', "select banyan_close(1, 'service')"],
    ['banyan_open', 'select banyan_open(2)'],
    ['banyan_bar', 'select banyan_bar(2)'],
    ['banyan_reopen', 'select banyan_reopen(1)'],
    ['update', 'update banyan_owner set open = true'],
    ['insert', "insert into banyan_owner values (false, 'service', true, 9, 0, now())"],
    ['delete', 'delete from banyan_owner'],
    ['truncate', 'truncate banyan_owner'],
  ])('cannot open itself with %s', async (_, text) => {
    await expect(test.database('inventory').query(text)).rejects.toMatchObject({ code: '42501' });
  });

  it('still runs the fence', async () => {
    await put({ side: 'monolith', open: true, epoch: 7, minEpoch: 0 });
    const { rows: answers } = await test.database('inventory').query(`select banyan_fence('monolith', 1) as epoch`);
    expect(answers).toEqual([{ epoch: 7 }]);
  });
});

it('closing waits for running commands, lets none in after, and stands behind their writes in the log', async () => {
  await put({ side: 'monolith', open: true, epoch: 1, minEpoch: 0 });
  await test.admin(`create publication p for tables in schema inventory`);
  await test.admin(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
  try {
    const db = test.database('inventory');
    let closing: Promise<unknown> | undefined;
    const order: string[] = [];
    await db.transaction({ text: `select banyan_fence('monolith', 1)` }, async () => {
      // It waits for a second at most, and then nothing has changed.
      const tried = () => call(`select inventory.banyan_close(1, 'service') as r`, []);
      closing = eventually(tried, patient).then(() => order.push('closed'));
      await eventually(isWaitedFor, patient);
      await db.query(`insert into inbox (event_id, type, received_at) values (gen_random_uuid(), 'x.Last', now())`);
      order.push('written');
    });
    await closing;
    expect(order).toEqual(['written', 'closed']);
    await expect(db.query(`select banyan_fence('monolith', 1)`)).rejects.toMatchObject({ code: 'BN001' });
    // What is not flushed yet is not shown.
    const { texts, message } = await eventually(async () => {
      const log = await test.admin<{ data: Buffer }>(
        `select data from pg_logical_slot_peek_binary_changes($1, null, null,
           'proto_version', '1', 'publication_names', 'p', 'messages', 'true')`,
        [slot],
      );
      const texts = log.map(({ data }) => data.toString('latin1'));
      const message = texts.findIndex((text) => text.includes('banyan.handover'));
      return message >= 0 && { texts, message };
    }, patient);
    const written = texts.findIndex((text) => text.includes('x.Last'));
    expect(written).toBeGreaterThan(-1);
    expect(message).toBeGreaterThan(written);
    expect(texts[message]).toContain('{"context" : "inventory", "epoch" : 2, "to" : "service"}');
  } finally {
    await test.admin('select pg_drop_replication_slot($1)', [slot]);
  }
}, 90_000);
