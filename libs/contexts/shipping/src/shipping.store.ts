import { Injectable } from '@nestjs/common';
import { Shipment, shipping } from '@banyan/contracts';
import { Database, InjectDatabase } from '@banyan/platform/database';
import type { z } from 'zod';
import { PrismaClient, type Shipment as ShipmentModel } from './generated/client.js';

export type ShipmentView = z.output<typeof Shipment>;

/** A row; those of orders that were cancelled before their shipment was asked for have no customer and no address. */
export interface ShipmentRow {
  id: string;
  orderId: string;
  customerId: string | null;
  status: ShipmentView['status'];
  trackingNumber: string | null;
  address: ShipmentView['address'] | null;
  items: ShipmentView['items'] | null;
  createdAt: Date;
  dispatchedAt: Date | null;
  deliveredAt: Date | null;
  cancelledAt: Date | null;
}

const rowOf = (row: ShipmentModel): ShipmentRow => row as unknown as ShipmentRow;

const insert = `
  insert into shipment (id, order_id, customer_id, status, tracking_number, address, items, created_at, cancelled_at)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
  on conflict (order_id) do nothing`;

const load = `
  select id, order_id as "orderId", customer_id as "customerId", status, tracking_number as "trackingNumber", address, items,
    created_at as "createdAt", dispatched_at as "dispatchedAt", delivered_at as "deliveredAt", cancelled_at as "cancelledAt"
  from shipment`;

@Injectable()
export class ShippingStore {
  private readonly prisma: PrismaClient;

  constructor(@InjectDatabase(shipping) private readonly db: Database) {
    this.prisma = new PrismaClient({ adapter: db.prismaAdapter() });
  }

  /** False, and nothing written, when the order has a row already. */
  async add(row: ShipmentRow): Promise<boolean> {
    const { rowCount } = await this.db.query(insert, [
      row.id,
      row.orderId,
      row.customerId,
      row.status,
      row.trackingNumber,
      row.address && JSON.stringify(row.address),
      row.items && JSON.stringify(row.items),
      row.createdAt,
      row.cancelledAt,
    ]);
    return rowCount === 1;
  }

  /** The order's row, locked until the transaction ends. */
  ofOrderForUpdate(orderId: string): Promise<ShipmentRow | undefined> {
    return this.one(`${load} where order_id = $1 for update`, orderId);
  }

  trackedForUpdate(trackingNumber: string): Promise<ShipmentRow | undefined> {
    return this.one(`${load} where tracking_number = $1 for update`, trackingNumber);
  }

  async find(id: string): Promise<ShipmentRow | undefined> {
    const row = await this.prisma.shipment.findFirst({ where: { id } });
    return row ? rowOf(row) : undefined;
  }

  /** Saves status and times of a row that was loaded for update. */
  async move({ id, status, dispatchedAt, deliveredAt, cancelledAt }: ShipmentRow): Promise<void> {
    await this.prisma.shipment.updateMany({
      where: { id },
      data: { status, dispatchedAt, deliveredAt, cancelledAt },
    });
  }

  /** Shipments that a carrier would have collected by `collect` and delivered by `deliver`: one statement. */
  async underWay(collect: Date, deliver: Date, limit: number): Promise<ShipmentRow[]> {
    const rows = await this.prisma.shipment.findMany({
      where: {
        OR: [
          { status: 'pending', createdAt: { lte: collect } },
          { status: 'dispatched', dispatchedAt: { lte: deliver } },
        ],
      },
      orderBy: { createdAt: 'asc' },
      take: limit,
    });
    return rows.map(rowOf);
  }

  private async one(sql: string, value: string): Promise<ShipmentRow | undefined> {
    const { rows } = await this.db.query<ShipmentRow & Record<string, unknown>>(sql, [value]);
    return rows[0];
  }
}
