import { Injectable } from '@nestjs/common';
import { inventory } from '@banyan/contracts';
import { Database, InjectDatabase } from '@banyan/platform/database';
import type { Reservation } from './domain/reservation.js';
import { type Movement, type StockItem, type StockLine, movements } from './domain/stock-item.js';
import { PrismaClient } from './generated/client.js';

interface ItemRow extends Record<string, unknown> {
  sku: string;
  on_hand: number;
  reserved: number;
  sold: number;
  received: number;
  version: number;
}

interface ReservationRow extends Record<string, unknown> {
  order_id: string;
  status: Reservation['status'];
  lines: StockLine[];
  expires_at: Date;
}

const reservationOf = 'select order_id, status, lines, expires_at from reservation where order_id = $1';
const itemColumns = 'sku, on_hand, reserved, sold, received, version';

/*
 * A whole reserve in one statement: lock the items that have enough, in SKU order (each is looked at again after the
 * wait for its lock); if that is all of them, claim the order; if that was new, hold the goods. An item that is sold
 * out is not locked at all, so late buyers do not queue for what is gone.
 *
 * No deadlocks: items are always locked in SKU order, and nobody waits for a reservation's lock while holding items.
 * (The claim waits only for another claim of the same order, which is not waiting for items any more.)
 */
const hold = `
  with line as materialized (
    select * from unnest($2::text[], $3::bigint[]) as line(sku, quantity)
  ),
  locked as materialized (
    select item.sku, line.quantity
    from stock_item item join line using (sku)
    where item.on_hand - item.reserved >= line.quantity
    order by item.sku
    for update of item
  ),
  claimed as (
    insert into reservation (order_id, status, lines, expires_at, created_at, updated_at)
    select $1::uuid, 'held', $4::jsonb, $5::timestamptz, $6::timestamptz, $6
    where (select count(*) from locked) = (select count(*) from line)
    on conflict (order_id) do nothing
    returning order_id
  )
  update stock_item item
  set reserved = item.reserved + locked.quantity, version = item.version + 1, updated_at = $6
  from locked, claimed
  where item.sku = locked.sku`;

/* $6 to $8: what one piece adds to each counter. */
const settle = `
  with settled as (
    update reservation set status = $2, updated_at = $3 where order_id = $1
  ),
  locked as materialized (
    select sku from stock_item where sku = any($4) order by sku for update
  )
  update stock_item item
  set on_hand = item.on_hand + $6::bigint * line.quantity,
    reserved = item.reserved + $7::bigint * line.quantity,
    sold = item.sold + $8::bigint * line.quantity,
    version = item.version + 1, updated_at = $3
  from locked join unnest($4::text[], $5::bigint[]) as line(sku, quantity) using (sku)
  where item.sku = locked.sku`;

/** Stock and reservations as rows. */
@Injectable()
export class InventoryStore {
  private readonly prisma: PrismaClient;

  constructor(@InjectDatabase(inventory) private readonly db: Database) {
    this.prisma = new PrismaClient({ adapter: db.prismaAdapter() });
  }

  async item(sku: string): Promise<StockItem | undefined> {
    return (await this.items([sku]))[0];
  }

  async items(skus: readonly string[]): Promise<StockItem[]> {
    const { rows } = await this.db.query<ItemRow>(`select ${itemColumns} from stock_item where sku = any($1)`, [skus]);
    return rows.map(toItem);
  }

  /** The item, locked until the transaction ends. */
  async lockItem(sku: string): Promise<StockItem | undefined> {
    const { rows } = await this.db.query<ItemRow>(`select ${itemColumns} from stock_item where sku = $1 for update`, [
      sku,
    ]);
    return rows[0] && toItem(rows[0]);
  }

  /** The item must be locked. */
  async saveItem(item: StockItem, now: Date): Promise<void> {
    const { sku, ...counters } = item;
    await this.prisma.stockItem.updateMany({ where: { sku }, data: { ...counters, updatedAt: now } });
  }

  /** Adds the items that are not there yet; answers how many that were. */
  async addItems(items: readonly StockItem[], now: Date): Promise<number> {
    const inOrder = [...items].sort((a, b) => (a.sku < b.sku ? -1 : 1));
    const { count } = await this.prisma.stockItem.createMany({
      data: inOrder.map((item) => ({ ...item, updatedAt: now })),
      skipDuplicates: true,
    });
    return count;
  }

  async reservation(orderId: string): Promise<Reservation | undefined> {
    const { rows } = await this.db.query<ReservationRow>(reservationOf, [orderId]);
    return rows[0] && toReservation(rows[0]);
  }

  /** The reservation, locked until the transaction ends. */
  async lockReservation(orderId: string): Promise<Reservation | undefined> {
    const { rows } = await this.db.query<ReservationRow>(`${reservationOf} for update`, [orderId]);
    return rows[0] && toReservation(rows[0]);
  }

  /** Holds all lines of a new reservation, or does nothing and answers false: stock is short, or the order is known. */
  async hold({ orderId, lines, expiresAt }: Reservation, now: Date): Promise<boolean> {
    const { rowCount } = await this.db.query(hold, [
      orderId,
      lines.map((line) => line.sku),
      lines.map((line) => line.quantity),
      JSON.stringify(lines),
      expiresAt,
      now,
    ]);
    return rowCount === lines.length;
  }

  /** Saves what became of a locked reservation, and moves its goods. */
  async settle({ orderId, status, lines }: Reservation, movement: Movement, now: Date): Promise<void> {
    const { onHand, reserved, sold } = movements[movement];
    const skus = lines.map((line) => line.sku);
    const quantities = lines.map((line) => line.quantity);
    const { rowCount } = await this.db.query(settle, [orderId, status, now, skus, quantities, onHand, reserved, sold]);
    if (rowCount !== lines.length) throw new Error(`Order ${orderId} moved ${rowCount} of ${lines.length} items`);
  }

  /** Remembers a closed order; false when the order is known by now. Waits for a reserve that is under way. */
  async addTombstone({ orderId, status, expiresAt }: Reservation, now: Date): Promise<boolean> {
    const { count } = await this.prisma.reservation.createMany({
      data: [{ orderId, status, lines: [], expiresAt, createdAt: now, updatedAt: now }],
      skipDuplicates: true,
    });
    return count === 1;
  }

  /** Orders whose hold ended before or at `at`, oldest first. */
  async overdue(at: Date, limit: number): Promise<string[]> {
    const rows = await this.prisma.reservation.findMany({
      where: { status: 'held', expiresAt: { lte: at } },
      select: { orderId: true },
      orderBy: [{ expiresAt: 'asc' }, { orderId: 'asc' }],
      take: limit,
    });
    return rows.map((row) => row.orderId);
  }
}

const toItem = ({ on_hand: onHand, sku, reserved, sold, received, version }: ItemRow): StockItem => ({
  sku,
  onHand,
  reserved,
  sold,
  received,
  version,
});

const toReservation = (row: ReservationRow): Reservation => ({
  orderId: row.order_id,
  status: row.status,
  lines: row.lines,
  expiresAt: row.expires_at,
});
