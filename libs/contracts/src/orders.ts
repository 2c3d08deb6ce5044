import { Id, Money, command, defineContext, drawn, event, query } from '@banyan/kernel';
import { z } from 'zod';
import { Address, Instant, NOBODY, PageInput, Quantity, Sku, page } from './common.js';
import { asEachUser } from './identity.js';

export const Cart = z
  .strictObject({
    items: z.array(
      z.strictObject({ sku: Sku, productName: z.string(), quantity: Quantity, unitPrice: Money, lineTotal: Money }),
    ),
    /** Null currency cannot exist: an empty cart totals zero in the shop's currency. */
    total: Money,
    version: z.int().min(0),
  })
  .meta({ id: 'Cart' });

export const OrderStatus = z.enum(['pending', 'confirmed', 'shipped', 'delivered', 'rejected', 'cancelled']);
export const OrderItem = z.strictObject({ sku: Sku, productName: z.string(), quantity: Quantity, unitPrice: Money });

export const Order = z
  .strictObject({
    id: Id,
    status: OrderStatus,
    reason: z.string().optional(),
    items: z.array(OrderItem),
    total: Money,
    shippingAddress: Address,
    payment: z.strictObject({ id: Id, status: z.string() }).nullable(),
    shipment: z.strictObject({ id: Id, status: z.string(), trackingNumber: z.string().nullable() }).nullable(),
    createdAt: Instant,
  })
  .meta({ id: 'Order' });

/** A provider token, never card data. The built-in provider knows tok_ok, tok_declined, tok_timeout, tok_3ds. */
export const PaymentMethod = z.string().regex(/^tok_[a-z0-9_]{1,60}$/, 'a provider token such as tok_ok');

const OrderRef = z.strictObject({ orderId: Id, customerId: Id });

/** Newest first: a customer's own, and to the system everybody's. */
const list = query({
  input: PageInput,
  output: page(Order),
  errors: { CURSOR_INVALID: 'invalid' },
  ...asEachUser({ limit: 5 }),
});

/** Carts and orders belong to the actor of the call; staff may read any order. */
export const orders = defineContext('orders', {
  routes: ['/v1/cart', '/v1/orders'],
  reads: {
    'GET /v1/cart': { query: 'cart' },
    'GET /v1/orders': { query: 'orders' },
    'GET /v1/orders/{id}': { query: 'order' },
  },
  keyed: ['POST /v1/orders', 'PUT /v1/cart/items/{sku}'],
  queries: {
    cart: query({ input: z.strictObject({}), output: Cart, ...asEachUser({}) }),
    order: query({
      input: z.strictObject({ id: Id }),
      output: Order,
      errors: { ORDER_NOT_FOUND: 'not_found' },
      examples: [{ id: NOBODY }],
      drawn: drawn(list, { limit: 20 }, ({ items }) => items.map(({ id }) => ({ input: { id } }))),
    }),
    orders: list,
  },
  commands: {
    setCartItem: command({
      input: z.strictObject({ sku: Sku, quantity: Quantity }),
      output: Cart,
      key: () => 'cart',
      errors: { PRODUCT_UNKNOWN: 'not_found', CART_FULL: 'conflict', CURRENCY_MIXED: 'conflict' },
    }),
    removeCartItem: command({ input: z.strictObject({ sku: Sku }), output: Cart, key: () => 'cart' }),
    placeOrder: command({
      input: z.strictObject({ shippingAddress: Address, paymentMethod: PaymentMethod }),
      output: Order,
      key: () => 'cart',
      errors: { CART_EMPTY: 'conflict' },
    }),
    cancelOrder: command({
      input: z.strictObject({ id: Id }),
      output: Order,
      key: (i) => i.id,
      prepared: z.strictObject({ shipment: z.enum(['none', 'cancelled', 'dispatched']) }),
      errors: { ORDER_NOT_FOUND: 'not_found', ORDER_NOT_CANCELLABLE: 'conflict' },
    }),
  },
  events: {
    OrderPlaced: event(1, 'order', OrderRef.extend({ items: z.array(OrderItem), total: Money })),
    OrderConfirmed: event(1, 'order', OrderRef.extend({ total: Money })),
    OrderRejected: event(1, 'order', OrderRef.extend({ reason: z.string() })),
    OrderCancelled: event(1, 'order', OrderRef),
    OrderShipped: event(1, 'order', OrderRef.extend({ trackingNumber: z.string().nullable() })),
    OrderDelivered: event(1, 'order', OrderRef),
  },
  calls: [
    'inventory.reserve',
    'inventory.commit',
    'inventory.release',
    'payments.authorise',
    'payments.capture',
    'payments.cancel',
    'shipping.createShipment',
    'shipping.cancelShipment',
  ],
  subscribes: [
    'catalog.ProductCreated',
    'catalog.ProductUpdated',
    'payments.ChallengePassed',
    'payments.PaymentDeclined',
    'payments.PaymentChanged',
    'shipping.ShipmentDispatched',
    'shipping.ShipmentDelivered',
    'shipping.ShipmentCancelled',
  ],
});
