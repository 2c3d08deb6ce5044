import { Injectable } from '@nestjs/common';
import { type Order, orders } from '@banyan/contracts';
import type { Money } from '@banyan/kernel';
import { Database, InjectDatabase } from '@banyan/platform/database';
import type { z } from 'zod';
import type { OrderItem } from './domain/cart.js';
import type { OrderStatus } from './domain/order.js';
import {
  type PaymentStatus,
  type ShipmentStatus,
  paymentStatusesBefore,
  shipmentStatusesBefore,
} from './domain/progress.js';
import { type OrderView, PrismaClient } from './generated/client.js';

export type OrderShown = z.output<typeof Order>;

/** What the read model is to show of the other contexts' part in an order. */
export interface Progress {
  payment?: { id: string; status: PaymentStatus };
  shipment?: { id: string; status: ShipmentStatus; trackingNumber: string | null };
}

/** A change of status, asked for with the statuses from which it may happen. */
export interface Move {
  orderId: string;
  from: OrderStatus[];
  to: OrderStatus;
  reason?: string;
  at: Date;
}

/** The order as the move found it, under its row lock. */
export interface Found {
  was: OrderStatus;
  customerId: string;
  total: Money;
}

/** An order's own row, its lines, and the row of the read model: one statement. */
const insertOrder = `
  with placed as (
    insert into orders (id, customer_id, status, total, currency, shipping_address, created_at, updated_at)
    values ($1, $2, 'pending', $3, $4, $5, $6, $6)
  ),
  lines as (
    insert into order_line (order_id, position, sku, product_name, quantity, unit_price)
    select $1, line.position, line.sku, line.name, line.quantity, (line.price ->> 'amount')::bigint
    from rows from (jsonb_to_recordset($7::jsonb) as (sku text, "productName" text, quantity int, "unitPrice" jsonb))
      with ordinality as line (sku, name, quantity, price, position)
  )
  insert into order_view (order_id, customer_id, status, items, total, currency, shipping_address, created_at)
  values ($1, $2, 'pending', $7::jsonb, $3, $4, $5, $6)`;

/* A part is shown only when it comes after what is shown ($2 over $3, $4 over $5), whichever news came first. */
const progress = `
  payment = case when $2::jsonb is not null and (v.payment is null or v.payment ->> 'status' = any($3::text[]))
    then $2::jsonb else v.payment end,
  shipment = case when $4::jsonb is not null and (v.shipment is null or v.shipment ->> 'status' = any($5::text[]))
    then $4::jsonb else v.shipment end`;

const showProgress = `update order_view v set ${progress} where v.order_id = $1`;

/* `found` locks the order and tells what it was; the rest happens only when that is one of the accepted statuses. */
const moveOrder = `
  with found as (select id, status, customer_id, total, currency from orders where id = $1 for update),
  moved as (
    update orders o set status = $6, reason = $7, updated_at = $8 from found f
    where o.id = f.id and f.status = any($9::text[]) returning o.id
  ),
  shown as (
    update order_view v set status = $6, reason = $7, ${progress} from moved m where v.order_id = m.id
  )
  select status, customer_id, total, currency from found`;

/** Orders and their read model. */
@Injectable()
export class OrdersStore {
  readonly #prisma: PrismaClient;

  constructor(@InjectDatabase(orders) private readonly db: Database) {
    this.#prisma = new PrismaClient({ adapter: db.prismaAdapter() });
  }

  /** Writes a new order, which is pending. */
  async insert(order: OrderShown, customerId: string): Promise<void> {
    const address = JSON.stringify(order.shippingAddress);
    const { amount, currency } = order.total;
    const items = JSON.stringify(order.items);
    await this.db.query(insertOrder, [order.id, customerId, amount, currency, address, order.createdAt, items]);
  }

  /** Moves an order if it is in one of the accepted statuses; tells what it was before, in either case. */
  async move({ orderId, from, to, reason, at }: Move, shown: Progress): Promise<Found | undefined> {
    const { rows } = await this.db.query<{ status: OrderStatus; customer_id: string; total: number; currency: string }>(
      moveOrder,
      [orderId, ...progressValues(shown), to, reason ?? null, at, from],
    );
    const row = rows[0];
    return (
      row && { was: row.status, customerId: row.customer_id, total: { amount: row.total, currency: row.currency } }
    );
  }

  /** Shows news of the payment or shipment, unless later news are shown already. */
  async show(orderId: string, shown: Progress): Promise<void> {
    await this.db.query(showProgress, [orderId, ...progressValues(shown)]);
  }

  /** An order as the read model has it, and whose it is. */
  async find(orderId: string): Promise<{ order: OrderShown; customerId: string } | undefined> {
    const row = await this.#prisma.orderView.findFirst({ where: { orderId } });
    return row ? { order: shownOf(row), customerId: row.customerId } : undefined;
  }

  /** Orders, newest first, starting after the order `after`. "Everybody" has to be said: no missing id may mean it. */
  async list(
    whose: { customerId: string } | 'everybody',
    limit: number,
    after: string | undefined,
  ): Promise<OrderShown[]> {
    const owner = whose === 'everybody' ? {} : { customerId: whose.customerId };
    const rows = await this.#prisma.orderView.findMany({
      where: { ...owner, ...(after !== undefined && { orderId: { lt: after } }) },
      orderBy: { orderId: 'desc' },
      take: limit,
    });
    return rows.map(shownOf);
  }
}

const progressValues = ({ payment, shipment }: Progress): unknown[] => [
  payment ? JSON.stringify(payment) : null,
  payment ? paymentStatusesBefore(payment.status) : [],
  shipment ? JSON.stringify(shipment) : null,
  shipment ? shipmentStatusesBefore(shipment.status) : [],
];

function shownOf(row: OrderView): OrderShown {
  return {
    id: row.orderId,
    status: row.status as OrderStatus,
    ...(row.reason !== null && { reason: row.reason }),
    items: row.items as unknown as OrderItem[],
    total: { amount: Number(row.total), currency: row.currency },
    shippingAddress: row.shippingAddress as OrderShown['shippingAddress'],
    payment: row.payment as OrderShown['payment'],
    shipment: row.shipment as OrderShown['shipment'],
    createdAt: row.createdAt.toISOString(),
  };
}
