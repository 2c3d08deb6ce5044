import { inventory } from '@banyan/contracts';
import { DomainError, newId } from '@banyan/kernel';
import { type Client, Jobs } from '@banyan/messaging';
import {
  CancellingOrders,
  type ContextApp,
  cancellingOrders,
  contextApp,
  eventually,
  testDatabase,
} from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ReservationExpiry } from './inventory.jobs.js';
import { InventoryModule } from './inventory.module.js';
import { InventoryStore } from './inventory.store.js';

/* Real: HTTP, the guard, the messaging engine, Postgres. The orders context is a stand-in that only cancels. */
const test = testDatabase({ contexts: ['inventory', 'orders'] });
const reservationMs = 60_000;

let shop: ContextApp;
let stock: Client<typeof inventory>;
let expiry: ReservationExpiry;

beforeAll(async () => {
  shop = await contextApp({
    test,
    module: InventoryModule,
    contracts: [inventory, cancellingOrders],
    providers: [CancellingOrders],
    settings: { BANYAN_RESERVATION_MS: String(reservationMs), BANYAN_RATE_LIMITS: 'off' },
  });
  stock = shop.client(inventory);
  expiry = shop.app.get(ReservationExpiry);
  // Only the sweeps that a test asks for: one besides would be at the same orders.
  await shop.app.get(Jobs).stop();
});
afterAll(() => shop?.close());

let skus = 0;
/** A new SKU with `onHand` pieces. */
async function given(onHand: number): Promise<string> {
  const sku = `SKU-${++skus}`;
  await stock.setStock({ sku, onHand });
  return sku;
}
const hold = (sku: string, quantity: number, orderId: string = newId()) =>
  stock.reserve({ orderId, lines: [{ sku, quantity }] });

async function refusal(call: Promise<unknown>): Promise<DomainError> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!DomainError.is(error)) throw new Error(`expected a refusal, got ${String(error)}`);
  return error;
}

/** Every counter against the checks of the domain and against what the reservations say. */
async function expectItAddsUp() {
  const wrong = await test.admin(`
    with line as (
      select r.status, l.sku, l.quantity from inventory.reservation r, jsonb_to_recordset(r.lines) l(sku text, quantity bigint)
    )
    select i.* from inventory.stock_item i
    where i.on_hand + i.sold <> i.received or i.reserved < 0 or i.reserved > i.on_hand or i.sold < 0
      or i.reserved <> (select coalesce(sum(quantity), 0) from line where line.sku = i.sku and status = 'held')
      or i.sold <> (select coalesce(sum(quantity), 0) from line where line.sku = i.sku and status = 'committed')`);
  expect(wrong).toEqual([]);
}

const eventsOf = (orderId: string) =>
  test
    .admin<{ type: string; data: unknown; version: string }>(
      'select distinct type, data, version from inventory.outbox where aggregate = $1 order by version',
      [`reservation/${orderId}`],
    )
    .then((rows) => rows.map((row) => row.type));

const ageAll = (orderIds: string[]) =>
  test.admin(`update inventory.reservation set expires_at = now() - interval '1 second' where order_id = any($1)`, [
    orderIds,
  ]);

describe('stock', () => {
  it('is unknown until it is set, and then what was set', async () => {
    expect(await refusal(stock.stockOf({ sku: 'NEVER' }))).toMatchObject({
      code: 'STOCK_NOT_FOUND',
      kind: 'not_found',
    });
    const sku = await given(7);
    expect(await stock.stockOf({ sku })).toEqual({ sku, onHand: 7, reserved: 0, available: 7, version: 1 });
    expect(await stock.setStock({ sku, onHand: 7 })).toMatchObject({ version: 1 });
    expect(await stock.setStock({ sku, onHand: 3 })).toMatchObject({ onHand: 3, version: 2 });
  });

  it('cannot be set below what is held', async () => {
    const sku = await given(10);
    await hold(sku, 4);
    expect(await refusal(stock.setStock({ sku, onHand: 3 }))).toMatchObject({
      code: 'STOCK_RESERVED',
      kind: 'conflict',
      data: { reserved: 4 },
    });
    expect(await stock.setStock({ sku, onHand: 4 })).toMatchObject({ onHand: 4, reserved: 4, available: 0 });
  });

  it('set for the first time by many at once has one row, and the last word of one of them', async () => {
    const counts = Array.from({ length: 20 }, (_, i) => i + 1);
    await Promise.all(counts.map((onHand) => stock.setStock({ sku: 'RACED', onHand })));
    expect(counts).toContain((await stock.stockOf({ sku: 'RACED' })).onHand);
  });

  it('is opened for new SKUs and left alone for known ones', async () => {
    const known = await given(5);
    const items = [known, 'OPEN-1', 'OPEN-2', 'OPEN-2'].map((sku) => ({ sku, onHand: 9 }));
    expect(await stock.openStock({ items })).toEqual({ opened: 2 });
    expect(await stock.openStock({ items })).toEqual({ opened: 0 });
    expect(await stock.stockOf({ sku: known })).toMatchObject({ onHand: 5 });
    expect(await stock.stockOf({ sku: 'OPEN-2' })).toMatchObject({ onHand: 9, version: 1 });
  });
});

describe('stock over HTTP', () => {
  const get = (sku: string) => shop.request('GET', `/v1/stock/${sku}`);
  const put = (sku: string, body: object, token?: string) => shop.request('PUT', `/v1/stock/${sku}`, { body, token });
  let staff: string;
  beforeAll(async () => {
    staff = await shop.tokenOf(newId(), 'staff');
  });

  it('is set by staff and read by anybody', async () => {
    const customer = await shop.tokenOf(newId(), 'customer');
    expect((await put('WEB', { onHand: 5 })).status).toBe(401);
    expect((await put('WEB', { onHand: 5 }, customer)).status).toBe(403);
    expect((await get('WEB')).body).toMatchObject({ status: 404, code: 'STOCK_NOT_FOUND' });
    const set = { sku: 'WEB', onHand: 5, reserved: 0, available: 5, version: 1 };
    expect((await put('WEB', { onHand: 5 }, staff)).body).toEqual(set);
    expect((await get('WEB')).body).toEqual(set);
  });

  it('below what is held is a conflict', async () => {
    const sku = await given(5);
    await hold(sku, 3);
    expect((await put(sku, { onHand: 2 }, staff)).body).toMatchObject({ status: 409, code: 'STOCK_RESERVED' });
  });

  it.each([{ onHand: -1 }, { onHand: 1.5 }, { onHand: '5' }, { onHand: 1e12 }, {}, { onHand: 1, reserved: 1 }])(
    'refuses %j',
    async (body) => expect((await put('WEB', body, staff)).status).toBe(400),
  );

  it.each(['a%20b', '-a', 'a'.repeat(65), '%00'])('refuses the SKU %s', async (sku) =>
    expect((await get(sku)).status).toBe(400),
  );
});

describe('reserve', () => {
  it('holds the goods for the configured time', async () => {
    const sku = await given(10);
    const started = Date.now();
    const orderId = newId();
    const reservation = await hold(sku, 3, orderId);
    expect(reservation).toMatchObject({ orderId, status: 'held', lines: [{ sku, quantity: 3 }] });
    expect(Date.parse(reservation.expiresAt) - started).toBeGreaterThanOrEqual(reservationMs);
    expect(await stock.stockOf({ sku })).toMatchObject({ onHand: 10, reserved: 3, available: 7 });
    expect(await eventsOf(orderId)).toEqual(['inventory.StockReserved']);
  });

  it('costs one statement, and a commit two', async () => {
    const sku = await given(10);
    const db = test.database('inventory');
    const store = new InventoryStore(db);
    const lines = [{ sku, quantity: 1 }];
    const held = { orderId: newId(), status: 'held' as const, lines, expiresAt: new Date() };
    const before = db.statementsExecuted();
    expect(await store.hold(held, new Date())).toBe(true);
    expect(db.statementsExecuted() - before).toBe(1);
    await store.lockReservation(held.orderId);
    await store.settle({ ...held, status: 'committed' }, 'sell', new Date());
    expect(db.statementsExecuted() - before).toBe(3);
    await expectItAddsUp();
  });

  it('merges lines of one SKU, also beyond what one line may ask for', async () => {
    const sku = await given(2_000);
    const lines = [
      { sku, quantity: 1_000 },
      { sku, quantity: 500 },
    ];
    expect((await stock.reserve({ orderId: newId(), lines })).lines).toEqual([{ sku, quantity: 1_500 }]);
  });

  it('takes all lines or none', async () => {
    const [plenty, few] = [await given(10), await given(1)];
    const orderId = newId();
    const lines = [
      { sku: plenty, quantity: 2 },
      { sku: few, quantity: 2 },
      { sku: 'UNKNOWN', quantity: 1 },
    ];
    expect(await refusal(stock.reserve({ orderId, lines }))).toMatchObject({
      code: 'OUT_OF_STOCK',
      kind: 'conflict',
      data: {
        shortages: [
          { sku: few, wanted: 2, available: 1 },
          { sku: 'UNKNOWN', wanted: 1, available: 0 },
        ],
      },
    });
    expect(await stock.stockOf({ sku: plenty })).toMatchObject({ reserved: 0, version: 1 });
    expect(await eventsOf(orderId)).toEqual([]);
  });

  it('asked again, also at the same moment or after the sale, is the same reservation', async () => {
    const sku = await given(10);
    const orderId = newId();
    const answers = await Promise.all(Array.from({ length: 8 }, () => hold(sku, 3, orderId)));
    expect(new Set(answers.map((answer) => answer.expiresAt)).size).toBe(1);
    expect(await stock.stockOf({ sku })).toMatchObject({ reserved: 3 });
    await stock.commit({ orderId });
    expect(await hold(sku, 3, orderId)).toMatchObject({ status: 'committed' });
    expect(await stock.stockOf({ sku })).toMatchObject({ onHand: 7, reserved: 0 });
    expect(await eventsOf(orderId)).toEqual(['inventory.StockReserved', 'inventory.StockCommitted']);
  });
});

describe('commit, release and expire', () => {
  it('commit sells what is held, once', async () => {
    const sku = await given(10);
    const { orderId } = await hold(sku, 4);
    expect(await stock.commit({ orderId })).toMatchObject({ status: 'committed' });
    expect(await stock.commit({ orderId })).toMatchObject({ status: 'committed' });
    expect(await stock.stockOf({ sku })).toMatchObject({ onHand: 6, reserved: 0, available: 6 });
    expect(await refusal(stock.commit({ orderId: newId() }))).toMatchObject({ code: 'RESERVATION_NOT_FOUND' });
  });

  it('release puts back what is held or sold, and closes the order', async () => {
    const sku = await given(10);
    const [held, sold] = [await hold(sku, 4), await hold(sku, 3)];
    await stock.commit({ orderId: sold.orderId });
    for (const { orderId } of [held, sold, held, sold])
      expect(await stock.release({ orderId })).toEqual({ orderId, status: 'released' });
    expect(await stock.stockOf({ sku })).toMatchObject({ onHand: 10, reserved: 0, available: 10 });
    expect(await refusal(stock.commit({ orderId: held.orderId }))).toMatchObject({ code: 'RESERVATION_CLOSED' });
    expect(await refusal(hold(sku, 1, held.orderId))).toMatchObject({ code: 'RESERVATION_CLOSED', kind: 'conflict' });
    expect(await eventsOf(held.orderId)).toEqual(['inventory.StockReserved', 'inventory.StockReleased']);
  });

  it('release of an order never seen refuses it when it comes', async () => {
    const sku = await given(10);
    const orderId = newId();
    expect(await stock.release({ orderId })).toEqual({ orderId, status: 'released' });
    expect(await refusal(hold(sku, 1, orderId))).toMatchObject({ code: 'RESERVATION_CLOSED' });
    expect(await refusal(stock.commit({ orderId }))).toMatchObject({ code: 'RESERVATION_CLOSED' });
    expect(await stock.stockOf({ sku })).toMatchObject({ available: 10 });
    expect(await eventsOf(orderId)).toEqual([]);
  });

  it('the sweep expires holds whose time is up, and no others', async () => {
    const sku = await given(10);
    const [due, notYet, sold] = [await hold(sku, 1), await hold(sku, 2), await hold(sku, 3)];
    await stock.commit({ orderId: sold.orderId });
    await ageAll([due.orderId, sold.orderId]);
    await expiry.expireOverdue({ now: new Date() });
    await expiry.expireOverdue({ now: new Date() });
    expect(await stock.stockOf({ sku })).toMatchObject({ onHand: 7, reserved: 2, available: 5 });
    expect(await stock.expire({ orderId: notYet.orderId })).toMatchObject({ expired: false });
    expect(await stock.release({ orderId: due.orderId })).toMatchObject({ status: 'expired' });
    expect(await eventsOf(due.orderId)).toEqual(['inventory.StockReserved', 'inventory.StockReleased']);
  });

  it('the sweep works through more than one batch', async () => {
    const sku = await given(300);
    const held: string[] = [];
    for (let i = 0; i < 250; i++) held.push((await hold(sku, 1)).orderId);
    await ageAll(held);
    await expiry.expireOverdue({ now: new Date() });
    expect(await stock.stockOf({ sku })).toMatchObject({ reserved: 0, available: 300 });
  });

  it('a cancelled order gives its goods back', async () => {
    const sku = await given(10);
    const { orderId } = await hold(sku, 4);
    await stock.commit({ orderId });
    await shop.client(cancellingOrders).cancel({ orderId });
    await eventually(async () => (await stock.stockOf({ sku })).available === 10, { timeoutMs: 20_000 });
    expect(await stock.release({ orderId })).toMatchObject({ status: 'released' });
  });
});

describe('many at once', () => {
  it('200 buyers on 50 pieces: exactly 50 are sold', async () => {
    const sku = await given(50);
    const outcomes = await Promise.allSettled(Array.from({ length: 200 }, () => hold(sku, 1)));
    const won = outcomes.filter((outcome) => outcome.status === 'fulfilled');
    expect(won).toHaveLength(50);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'OUT_OF_STOCK' });
    expect(await stock.stockOf({ sku })).toMatchObject({ onHand: 50, reserved: 50, available: 0 });
    await Promise.all(won.map(({ value }) => stock.commit({ orderId: value.orderId })));
    expect(await stock.stockOf({ sku })).toMatchObject({ onHand: 0, reserved: 0, available: 0 });
    await expectItAddsUp();
  });

  it('baskets with the same SKUs in any order do not deadlock', async () => {
    const [a, b, c] = [await given(60), await given(60), await given(60)];
    const orderOf = (i: number) =>
      [
        [a, b, c],
        [c, b, a],
        [b, c, a],
        [c, a],
      ][i % 4]!;
    const outcomes = await Promise.allSettled(
      Array.from({ length: 120 }, (_, i) =>
        stock.reserve({ orderId: newId(), lines: orderOf(i).map((sku) => ({ sku, quantity: 1 })) }),
      ),
    );
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'OUT_OF_STOCK' });
    // Every basket wants `a` and `c`, so those decide.
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(60);
    await expectItAddsUp();
  });

  it('reserve, commit, release, expire, cancel and recounts in any order keep the sums', async () => {
    const skus = [await given(30), await given(30)];
    const known = Array.from({ length: 40 }, () => newId());
    let seed = 7;
    const next = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
    const step = async () => {
      const orderId = known[next(known.length)]!;
      const sku = skus[next(2)]!;
      switch (next(6)) {
        case 0:
        case 1:
          return stock.reserve({ orderId, lines: skus.map((each) => ({ sku: each, quantity: 1 + next(2) })) });
        case 2:
          return stock.commit({ orderId });
        case 3:
          return stock.release({ orderId });
        case 4:
          return stock.expire({ orderId });
        default:
          return stock.setStock({ sku, onHand: 20 + next(20) });
      }
    };
    const outcomes = await Promise.allSettled(Array.from({ length: 600 }, step));
    const allowed = ['OUT_OF_STOCK', 'RESERVATION_CLOSED', 'RESERVATION_NOT_FOUND', 'STOCK_RESERVED'];
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(allowed).toContain((outcome.reason as DomainError).code);
    await expectItAddsUp();
  });

  it('a release that races its reserve leaves nothing held', async () => {
    const sku = await given(1_000);
    const raced = Array.from({ length: 60 }, () => newId());
    await Promise.all(
      raced.flatMap((orderId) => [hold(sku, 1, orderId).catch(() => undefined), stock.release({ orderId })]),
    );
    expect(await stock.stockOf({ sku })).toMatchObject({ reserved: 0, available: 1_000 });
    await expectItAddsUp();
  });
});

it('nothing of the above met a deadlock', async () => {
  expect(await test.admin('select deadlocks from pg_stat_database where datname = current_database()')).toEqual([
    { deadlocks: '0' },
  ]);
});

it('the database itself refuses counters that do not add up', async () => {
  const sku = await given(5);
  for (const wrong of ['on_hand = 4', 'reserved = 6', 'sold = -1, received = 4', 'reserved = -1'])
    await expect(test.admin(`update inventory.stock_item set ${wrong} where sku = $1`, [sku])).rejects.toMatchObject({
      code: '23514',
    });
});
