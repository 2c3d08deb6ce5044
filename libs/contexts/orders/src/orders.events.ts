import { catalog, orders, payments, shipping } from '@banyan/contracts';
import { type CommandContext, type EventOf, On, Sagas, Subscribes } from '@banyan/messaging';
import { CartStore } from './cart.store.js';
import { CHECKOUT, SHIPMENT_CANCELLED } from './checkout.saga.js';
import { OrderMoves } from './order-moves.js';

type Payments = typeof payments.events;
type Shipping = typeof shipping.events;

/** What orders does when other contexts publish. */
@Subscribes(orders)
export class OrdersEvents {
  constructor(
    private readonly carts: CartStore,
    private readonly moves: OrderMoves,
    private readonly sagas: Sagas,
  ) {}

  @On(catalog.events.ProductCreated)
  onProductCreated(event: EventOf<typeof catalog.events.ProductCreated>): Promise<void> {
    return this.carts.rememberProduct(event.data, event.version);
  }

  @On(catalog.events.ProductUpdated)
  onProductUpdated(event: EventOf<typeof catalog.events.ProductUpdated>): Promise<void> {
    return this.carts.rememberProduct(event.data, event.version);
  }

  /** Ends the wait for a 3-D Secure answer. */
  @On(payments.events.ChallengePassed)
  onChallengePassed({ data }: EventOf<Payments['ChallengePassed']>, ctx: CommandContext): Promise<void> {
    const { orderId, paymentId } = data;
    return this.sagas.signal(CHECKOUT, orderId, 'authorise', { done: { paymentId } }, ctx);
  }

  @On(payments.events.PaymentDeclined)
  async onPaymentDeclined({ data }: EventOf<Payments['PaymentDeclined']>, ctx: CommandContext): Promise<void> {
    const { orderId, paymentId } = data;
    await this.sagas.signal(CHECKOUT, orderId, 'authorise', { refused: 'PAYMENT_DECLINED' }, ctx);
    await this.moves.show(orderId, { payment: { id: paymentId, status: 'declined' } });
  }

  @On(payments.events.PaymentChanged)
  onPaymentChanged({ data }: EventOf<Payments['PaymentChanged']>): Promise<void> {
    return this.moves.show(data.orderId, { payment: { id: data.paymentId, status: data.status } });
  }

  @On(shipping.events.ShipmentDispatched)
  onShipmentDispatched({ data }: EventOf<Shipping['ShipmentDispatched']>, ctx: CommandContext): Promise<void> {
    const { orderId, shipmentId, trackingNumber } = data;
    return this.sagas.signal(CHECKOUT, orderId, 'dispatch', { done: { shipmentId, trackingNumber } }, ctx);
  }

  @On(shipping.events.ShipmentDelivered)
  onShipmentDelivered({ data }: EventOf<Shipping['ShipmentDelivered']>, ctx: CommandContext): Promise<void> {
    return this.moves.move(data.orderId, { type: 'deliver' }, ctx, { shipment: shipment(data, 'delivered') });
  }

  /**
   * Mostly our own doing, by a cancellation or a compensation, and the saga is over or on its way back. When the
   * cancellation broke off in between, the saga still waits for the dispatch: now it undoes and cancels the order.
   */
  @On(shipping.events.ShipmentCancelled)
  async onShipmentCancelled({ data }: EventOf<Shipping['ShipmentCancelled']>, ctx: CommandContext): Promise<void> {
    await this.sagas.signal(CHECKOUT, data.orderId, 'dispatch', { refused: SHIPMENT_CANCELLED }, ctx);
    await this.moves.show(data.orderId, { shipment: shipment(data, 'cancelled') });
  }
}

const shipment = (data: { shipmentId: string; trackingNumber: string | null }, status: 'delivered' | 'cancelled') => ({
  id: data.shipmentId,
  status,
  trackingNumber: data.trackingNumber,
});
