import { type Address, inventory, payments, shipping } from '@banyan/contracts';
import { DomainError, type Money } from '@banyan/kernel';
import { type Client, HoldsSaga, InjectClient, defineSaga, done, wait } from '@banyan/messaging';
import { OrderMoves } from './order-moves.js';

type InventoryClient = Client<typeof inventory>;
type PaymentsClient = Client<typeof payments>;
type ShippingClient = Client<typeof shipping>;

/** What the saga knows of its order. The payment method is kept here only, and only a provider's token. */
export interface CheckoutData {
  orderId: string;
  customerId: string;
  total: Money;
  method: string;
  address: Address;
  lines: { sku: string; quantity: number }[];
  paymentId?: string;
  shipmentId?: string;
  trackingNumber?: string | null;
}

export const CHECKOUT = 'orders.checkout';

/** The reason of a checkout that ended because its shipment was stopped, which only a cancellation does. */
export const SHIPMENT_CANCELLED = 'SHIPMENT_CANCELLED';

const seconds = 1_000;
const minutes = 60 * seconds;

/**
 * From a placed order to money for shipped goods. Up to `ship` every step has a deadline and a way back; all of them
 * together stay under the 15 minutes that a reservation is held. Once the carrier has the goods there is no way back.
 */
@HoldsSaga()
export class Checkout {
  constructor(
    private readonly moves: OrderMoves,
    @InjectClient(inventory) private readonly inventory: InventoryClient,
    @InjectClient(payments) private readonly payments: PaymentsClient,
    @InjectClient(shipping) private readonly shipping: ShippingClient,
  ) {}

  readonly saga = defineSaga<CheckoutData>({
    name: CHECKOUT,
    steps: [
      {
        name: 'reserve',
        withinMs: 30 * seconds,
        run: async ({ orderId, lines }, call) => {
          await this.inventory.reserve({ orderId, lines }, call);
          return done();
        },
        compensate: async ({ orderId }, call) => {
          await this.inventory.release({ orderId }, call);
        },
      },
      {
        // Long enough for a customer to answer a 3-D Secure challenge.
        name: 'authorise',
        withinMs: 10 * minutes,
        run: async ({ orderId, customerId, total, method }, call) => {
          const payment = await this.payments.authorise({ orderId, customerId, amount: total, method }, call);
          if (payment.status === 'requires_action') return wait({ paymentId: payment.id });
          if (payment.status === 'authorised' || payment.status === 'captured') return done({ paymentId: payment.id });
          throw new DomainError('PAYMENT_DECLINED', 'conflict', payment.reason ?? `The payment is ${payment.status}`);
        },
        onWait: ({ orderId, paymentId }) =>
          this.moves.show(orderId, { payment: payment(paymentId, 'requires_action') }),
        compensate: async ({ orderId }, call) => {
          await this.payments.cancel({ orderId }, call);
        },
      },
      {
        // The stock is sold now; `reserve` puts sold goods back as well.
        name: 'confirm',
        withinMs: 60 * seconds,
        run: async ({ orderId }, call) => {
          await this.inventory.commit({ orderId }, call);
          return done();
        },
        onDone: ({ orderId, paymentId }, ctx) =>
          this.moves.move(orderId, { type: 'confirm' }, ctx, { payment: payment(paymentId, 'authorised') }),
      },
      {
        name: 'ship',
        withinMs: 60 * seconds,
        run: async ({ orderId, customerId, address, lines }, call) => {
          const shipment = await this.shipping.createShipment({ orderId, customerId, address, items: lines }, call);
          return done({ shipmentId: shipment.id, trackingNumber: shipment.trackingNumber });
        },
        compensate: async ({ orderId }, call) => {
          await this.shipping.cancelShipment({ orderId }, call);
        },
      },
      {
        // The carrier comes when it comes. The shipment is shown in the transaction that begins to wait, which is there
        // anyway: shown by `ship` it would cost one of its own (6 statements a purchase).
        name: 'dispatch',
        onWait: (data) => this.moves.show(data.orderId, { shipment: shipment(data, 'pending') }),
        onDone: (data, ctx) =>
          this.moves.move(data.orderId, { type: 'ship' }, ctx, { shipment: shipment(data, 'dispatched') }),
      },
      {
        // The goods are gone: the money is asked for until it is there. The read model hears of it by PaymentChanged.
        name: 'capture',
        run: async ({ orderId }, call) => {
          await this.payments.capture({ orderId }, call);
          return done();
        },
      },
    ],
    onCompensated: ({ orderId }, reason, ctx) =>
      this.moves.move(orderId, reason === SHIPMENT_CANCELLED ? { type: 'cancel' } : { type: 'reject', reason }, ctx),
  });
}

const payment = (id: string | undefined, status: 'requires_action' | 'authorised') =>
  id === undefined ? undefined : { id, status };

const shipment = ({ shipmentId: id, trackingNumber = null }: CheckoutData, status: 'pending' | 'dispatched') =>
  id === undefined ? undefined : { id, status, trackingNumber };
