import { shipping } from '@banyan/contracts';
import { hasRole } from '@banyan/kernel';
import { type CommandContext, type Handlers, Serves } from '@banyan/messaging';
import { type ShipmentRow, type ShipmentView, ShippingStore } from './shipping.store.js';

type Ops = Handlers<typeof shipping>;

@Serves(shipping)
export class ShippingService implements Ops {
  constructor(private readonly store: ShippingStore) {}

  shipment: Ops['shipment'] = async ({ id }, { actor }) => {
    const row = await this.store.find(id);
    const theirs = actor.kind === 'user' && actor.id === row?.customerId;
    if (!row?.address || !(theirs || hasRole(actor, 'staff'))) throw notFound();
    return view(row);
  };

  createShipment: Ops['createShipment'] = async ({ orderId, customerId, address, items }, ctx) => {
    const id = ctx.newId();
    const row: ShipmentRow = {
      ...blank(id, orderId, ctx.now),
      customerId,
      status: 'pending',
      trackingNumber: trackingNumberOf(id),
      address,
      items,
    };
    if (await this.store.add(row)) return view(row);
    const known = await this.known(orderId);
    if (known.status === 'cancelled') throw shipping.fail('SHIPMENT_CANCELLED', 'The order was cancelled');
    return view(known);
  };

  cancelShipment: Ops['cancelShipment'] = async ({ orderId }, ctx) => ({
    orderId,
    outcome: await this.stop(orderId, ctx),
  });

  /**
   * Stops the shipment of an order unless it has left. An order that is not known yet leaves a cancelled row behind,
   * so that a request which comes late is refused.
   */
  async stop(orderId: string, ctx: CommandContext): Promise<'none' | 'cancelled' | 'dispatched'> {
    const stopped: ShipmentRow = { ...blank(ctx.newId(), orderId, ctx.now), status: 'cancelled', cancelledAt: ctx.now };
    if (await this.store.add(stopped)) return 'none';
    const row = await this.known(orderId);
    if (row.status === 'cancelled') return row.address ? 'cancelled' : 'none';
    if (row.status !== 'pending') return 'dispatched';
    await this.store.move({ ...row, status: 'cancelled', cancelledAt: ctx.now });
    ctx.emit(shipping.events.ShipmentCancelled, row.id, refOf(row));
    return 'cancelled';
  }

  recordCarrierEvent: Ops['recordCarrierEvent'] = async ({ trackingNumber, status, at }, ctx) => {
    const row = await this.store.trackedForUpdate(trackingNumber);
    // A carrier that collected what was cancelled has to bring it back; the money is on its way to the customer.
    if (!row || row.status === 'cancelled' || row.status === 'delivered' || row.status === status)
      return { recorded: false };
    const moved = { ...row, status, dispatchedAt: row.dispatchedAt ?? new Date(at) };
    // Delivered is told before dispatched when the carrier's messages overtake one another: it is both.
    if (status === 'delivered') moved.deliveredAt = new Date(at);
    await this.store.move(moved);
    if (row.status === 'pending') ctx.emit(shipping.events.ShipmentDispatched, row.id, refOf(row));
    if (status === 'delivered') ctx.emit(shipping.events.ShipmentDelivered, row.id, refOf(row));
    return { recorded: true };
  };

  private async known(orderId: string): Promise<ShipmentRow> {
    const row = await this.store.ofOrderForUpdate(orderId);
    if (!row) throw new Error(`Order ${orderId} had a shipment a moment ago`);
    return row;
  }
}

const notFound = () => shipping.fail('SHIPMENT_NOT_FOUND', 'There is no such shipment');

const blank = (id: string, orderId: string, createdAt: Date) => ({
  id,
  orderId,
  customerId: null,
  trackingNumber: null,
  address: null,
  items: null,
  createdAt,
  dispatchedAt: null,
  deliveredAt: null,
  cancelledAt: null,
});

/** The id itself, written shorter: unique, and the same in a replay. */
const trackingNumberOf = (id: string): string =>
  `BYN${BigInt(`0x${id.replaceAll('-', '')}`)
    .toString(36)
    .toUpperCase()}`;

const refOf = ({ id, orderId, trackingNumber }: ShipmentRow) => ({ shipmentId: id, orderId, trackingNumber });

function view(row: ShipmentRow): ShipmentView {
  const { id, orderId, status, trackingNumber, address, items, createdAt } = row;
  if (!address || !items) throw notFound();
  const moments: [ShipmentView['status'], Date | null][] = [
    ['pending', createdAt],
    ['dispatched', row.dispatchedAt],
    ['delivered', row.deliveredAt],
    ['cancelled', row.cancelledAt],
  ];
  return {
    id,
    orderId,
    status,
    trackingNumber,
    address,
    items,
    events: moments.flatMap(([status, at]) => (at ? [{ status, at: at.toISOString() }] : [])),
    createdAt: createdAt.toISOString(),
  };
}
