import { Id, command, defineContext, drawn, event, query } from '@banyan/kernel';
import { z } from 'zod';
import { Address, Instant, NOBODY } from './common.js';
import { StockLine } from './inventory.js';
import { orders } from './orders.js';

export const ShipmentStatus = z.enum(['pending', 'dispatched', 'delivered', 'cancelled']);

export const Shipment = z
  .strictObject({
    id: Id,
    orderId: Id,
    status: ShipmentStatus,
    trackingNumber: z.string().nullable(),
    address: Address,
    items: z.array(StockLine),
    events: z.array(z.strictObject({ status: ShipmentStatus, at: Instant })),
    createdAt: Instant,
  })
  .meta({ id: 'Shipment' });

const ShipmentRef = z.strictObject({ shipmentId: Id, orderId: Id, trackingNumber: z.string().nullable() });

export const shipping = defineContext('shipping', {
  routes: ['/v1/shipments', '/v1/webhooks/carrier'],
  reads: { 'GET /v1/shipments/{id}': { query: 'shipment' } },
  queries: {
    shipment: query({
      input: z.strictObject({ id: Id }),
      output: Shipment,
      errors: { SHIPMENT_NOT_FOUND: 'not_found' },
      examples: [{ id: NOBODY }],
      drawn: drawn(orders.queries.orders, { limit: 20 }, ({ items }) =>
        items.flatMap(({ shipment }) => (shipment ? [{ input: { id: shipment.id } }] : [])),
      ),
    }),
  },
  commands: {
    /** Asked again for the same order: the same shipment. */
    createShipment: command({
      repeatable: true,
      input: z.strictObject({ orderId: Id, customerId: Id, address: Address, items: z.array(StockLine).min(1) }),
      output: Shipment,
      key: (i) => i.orderId,
      errors: { SHIPMENT_CANCELLED: 'conflict' },
    }),
    /** Stops a shipment that has not left. An order never seen is remembered, so a late create is refused. */
    cancelShipment: command({
      repeatable: true,
      input: z.strictObject({ orderId: Id }),
      output: z.strictObject({ orderId: Id, outcome: z.enum(['none', 'cancelled', 'dispatched']) }),
      key: (i) => i.orderId,
    }),
    /** A carrier's webhook, its signature already checked. Told twice or late, it changes nothing. */
    recordCarrierEvent: command({
      input: z.strictObject({
        eventId: z.string().min(1).max(200),
        trackingNumber: z.string().min(1).max(100),
        status: z.enum(['dispatched', 'delivered']),
        at: Instant,
      }),
      output: z.strictObject({ recorded: z.boolean() }),
      key: (i) => i.trackingNumber,
    }),
  },
  events: {
    ShipmentDispatched: event(1, 'shipment', ShipmentRef),
    ShipmentDelivered: event(1, 'shipment', ShipmentRef),
    ShipmentCancelled: event(1, 'shipment', ShipmentRef),
  },
  subscribes: ['orders.OrderCancelled'],
});
