import { Id, command, defineContext, drawn, event, query } from '@banyan/kernel';
import { z } from 'zod';
import { catalog } from './catalog.js';
import { Instant, Quantity, Sku } from './common.js';

const OnHand = z.int().min(0).max(100_000_000);

/** `available` is `onHand - reserved`. What was sold has left `onHand`. */
export const Stock = z
  .strictObject({
    sku: Sku,
    onHand: z.int().min(0),
    reserved: z.int().min(0),
    available: z.int().min(0),
    version: z.int().min(1),
  })
  .meta({ id: 'Stock' });

export const StockLine = z.strictObject({ sku: Sku, quantity: Quantity });
const Lines = z.array(StockLine).min(1).max(100);
/** Each SKU once: lines of one SKU have become one, which may hold more than a single line may ask for. */
const HeldLines = z.array(z.strictObject({ sku: Sku, quantity: z.int().min(1) })).min(1);

export const Reservation = z.strictObject({
  orderId: Id,
  status: z.enum(['held', 'committed', 'released', 'expired']),
  expiresAt: Instant,
  lines: HeldLines,
});

export const inventory = defineContext('inventory', {
  routes: ['/v1/stock'],
  reads: { 'GET /v1/stock/{sku}': { query: 'stockOf', public: true } },
  keyed: ['PUT /v1/stock/{sku}'],
  queries: {
    stockOf: query({
      input: z.strictObject({ sku: Sku }),
      output: Stock,
      errors: { STOCK_NOT_FOUND: 'not_found' },
      examples: [{ sku: 'KIT-0001' }, { sku: 'no-such-thing' }],
      drawn: drawn(catalog.queries.products, { limit: 100 }, ({ items }) =>
        items.map(({ sku }) => ({ input: { sku } })),
      ),
    }),
    /** Held reservations whose time is up, oldest first: what the expiry sweep works on. */
    overdueReservations: query({
      input: z.strictObject({ limit: z.int().min(1).max(500), at: Instant }),
      output: z.strictObject({ orderIds: z.array(Id) }),
      examples: [
        { limit: 100, at: '2026-01-01T00:00:00.000Z' },
        { limit: 10, at: '2100-01-01T00:00:00.000Z' },
      ],
    }),
  },
  commands: {
    setStock: command({
      input: z.strictObject({ sku: Sku, onHand: OnHand }),
      output: Stock,
      key: (i) => i.sku,
      errors: { STOCK_RESERVED: 'conflict' },
    }),
    /** Sets the stock of many SKUs that have none yet; those that have are left alone. */
    openStock: command({
      input: z.strictObject({
        items: z
          .array(z.strictObject({ sku: Sku, onHand: OnHand }))
          .min(1)
          .max(500),
      }),
      output: z.strictObject({ opened: z.int() }),
      key: () => 'open-stock',
    }),
    /** Holds all lines or none. Asked again for an order that holds already: the same reservation. */
    reserve: command({
      repeatable: true,
      input: z.strictObject({ orderId: Id, lines: Lines }),
      output: Reservation,
      key: (i) => i.orderId,
      errors: { OUT_OF_STOCK: 'conflict', RESERVATION_CLOSED: 'conflict' },
    }),
    /** The held goods are sold. After this the reservation cannot expire. */
    commit: command({
      repeatable: true,
      input: z.strictObject({ orderId: Id }),
      output: Reservation,
      key: (i) => i.orderId,
      errors: { RESERVATION_CLOSED: 'conflict', RESERVATION_NOT_FOUND: 'not_found' },
    }),
    /** Puts held or sold goods back. An order never seen is remembered as released, so a late reserve is refused. */
    release: command({
      repeatable: true,
      input: z.strictObject({ orderId: Id }),
      output: z.strictObject({ orderId: Id, status: z.enum(['released', 'expired']) }),
      key: (i) => i.orderId,
    }),
    expire: command({
      repeatable: true,
      input: z.strictObject({ orderId: Id }),
      output: z.strictObject({ orderId: Id, expired: z.boolean() }),
      key: (i) => i.orderId,
    }),
  },
  events: {
    StockReserved: event(1, 'reservation', z.strictObject({ orderId: Id, lines: HeldLines, expiresAt: Instant })),
    StockCommitted: event(1, 'reservation', z.strictObject({ orderId: Id, lines: HeldLines })),
    StockReleased: event(
      1,
      'reservation',
      z.strictObject({ orderId: Id, lines: HeldLines, reason: z.enum(['released', 'expired']) }),
    ),
  },
  subscribes: ['orders.OrderCancelled'],
});
