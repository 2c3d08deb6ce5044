import { Injectable } from '@nestjs/common';
import { payments } from '@banyan/contracts';
import { Database, InjectDatabase } from '@banyan/platform/database';
import type { Booking } from './domain/ledger.js';
import { type Intent, type Payment, type PaymentEvent, dueAt } from './domain/payment.js';
import { PrismaClient } from './generated/client.js';

interface PaymentRow {
  id: string;
  orderId: string;
  customerId: string | null;
  status: string;
  currency: string | null;
  amount: number | bigint;
  authorised: number | bigint;
  captured: number | bigint;
  refunded: number | bigint;
  setAside: number | bigint;
  providerRef: string | null;
  actionUrl: string | null;
  reason: string | null;
  cancelled: boolean;
  intents: unknown;
  version: number;
  createdAt: Date;
}

const paymentOf = (row: PaymentRow): Payment => ({
  id: row.id,
  orderId: row.orderId,
  customerId: row.customerId,
  status: row.status as Payment['status'],
  currency: row.currency,
  amount: Number(row.amount),
  authorised: Number(row.authorised),
  captured: Number(row.captured),
  refunded: Number(row.refunded),
  setAside: Number(row.setAside),
  providerRef: row.providerRef,
  actionUrl: row.actionUrl,
  reason: row.reason,
  cancelled: row.cancelled,
  intents: row.intents as Intent[],
  version: row.version,
  createdAt: row.createdAt.toISOString(),
});

const load = `
  select id, order_id as "orderId", customer_id as "customerId", status, currency, amount, authorised, captured, refunded,
    set_aside as "setAside", provider_ref as "providerRef", action_url as "actionUrl", reason, cancelled, intents, version,
    created_at as "createdAt"
  from payment`;

/* Snapshot, events and ledger are written by one statement: one round trip, and no way to write one without the others. */
const append = `
  event as (
    insert into payment_event (id, payment_id, version, type, data, at)
    select e.id, s.id, e.version, e.event ->> 'type', e.event - 'type', $3
    from saved s, jsonb_to_recordset($1) as e (id uuid, version int, event jsonb)
  ),
  entry as (
    insert into ledger_entry (id, transaction_id, payment_id, account, amount, currency, at)
    select e.id, e."transactionId", s.id, e.account, e.amount, e.currency, $3
    from saved s, jsonb_to_recordset($2) as e (id uuid, "transactionId" uuid, account text, amount bigint, currency char(3))
  )
  select id from saved`;

const insert = `
  with saved as (
    insert into payment (id, order_id, version, customer_id, currency, amount, created_at, status, authorised, captured,
      refunded, set_aside, provider_ref, action_url, reason, cancelled, intents, due_at)
    values ($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
    on conflict (order_id) do nothing
    returning id
  ),
  ${append}`;

const update = `
  with saved as (
    update payment set version = $6, status = $7, authorised = $8, captured = $9, refunded = $10, set_aside = $11,
      provider_ref = $12, action_url = $13, reason = $14, cancelled = $15, intents = $16, due_at = $17
    where id = $4 and version = $5
    returning id
  ),
  ${append}`;

const journal = ({ events, entries, at }: Booking) => [JSON.stringify(events), JSON.stringify(entries), at];
const changing = (payment: Payment) => [
  payment.status,
  payment.authorised,
  payment.captured,
  payment.refunded,
  payment.setAside,
  payment.providerRef,
  payment.actionUrl,
  payment.reason,
  payment.cancelled,
  JSON.stringify(payment.intents),
  dueAt(payment),
];

@Injectable()
export class PaymentStore {
  private readonly prisma: PrismaClient;

  constructor(@InjectDatabase(payments) private readonly db: Database) {
    this.prisma = new PrismaClient({ adapter: db.prismaAdapter() });
  }

  /** A payment that begins. False, and nothing written, when the order has one already. */
  async begin(booking: Booking): Promise<boolean> {
    const { after } = booking;
    const { rowCount } = await this.db.query(insert, [
      ...journal(booking),
      after.id,
      after.orderId,
      after.version,
      after.customerId,
      after.currency,
      after.amount,
      after.createdAt,
      ...changing(after),
    ]);
    return rowCount === 1;
  }

  /** A payment that goes on; it was loaded for update, so a version that has moved is a bug. */
  async goOn(booking: Booking): Promise<void> {
    const { before, after } = booking;
    const { rowCount } = await this.db.query(update, [
      ...journal(booking),
      after.id,
      before.version,
      after.version,
      ...changing(after),
    ]);
    if (rowCount !== 1) throw new Error(`Payment ${after.id} is no longer at version ${before.version}`);
  }

  /** The order's payment, locked until the transaction ends. */
  ofOrderForUpdate(orderId: string): Promise<Payment | undefined> {
    return this.one(`${load} where order_id = $1 for update`, orderId);
  }

  forUpdate(id: string): Promise<Payment | undefined> {
    return this.one(`${load} where id = $1 for update`, id);
  }

  ofProviderRefForUpdate(providerRef: string): Promise<Payment | undefined> {
    return this.one(`${load} where provider_ref = $1 for update`, providerRef);
  }

  /** The order's payment as it stands, without a lock. */
  ofOrder(orderId: string): Promise<Payment | undefined> {
    return this.one(`${load} where order_id = $1`, orderId);
  }

  async find(id: string): Promise<Payment | undefined> {
    const row = await this.prisma.payment.findFirst({ where: { id } });
    return row ? paymentOf(row) : undefined;
  }

  /** Payments with something open at the provider since before `at`, oldest first, after the id `after`. */
  async due(at: Date, limit: number, after?: Payment): Promise<Payment[]> {
    const rows = await this.prisma.payment.findMany({
      where: { dueAt: { lte: at }, ...(after && { id: { gt: after.id } }) },
      orderBy: { id: 'asc' },
      take: limit,
    });
    return rows.map(paymentOf);
  }

  /** Everything that happened to a payment, in order: what its snapshot can be made from again. */
  async history(paymentId: string): Promise<{ event: PaymentEvent; at: string }[]> {
    const rows = await this.prisma.paymentEvent.findMany({ where: { paymentId }, orderBy: { version: 'asc' } });
    return rows.map(({ type, data, at }) => ({
      event: { type, ...(data as object) } as PaymentEvent,
      at: at.toISOString(),
    }));
  }

  private async one(sql: string, value: string): Promise<Payment | undefined> {
    const { rows } = await this.db.query<PaymentRow & Record<string, unknown>>(sql, [value]);
    return rows[0] && paymentOf(rows[0]);
  }
}
