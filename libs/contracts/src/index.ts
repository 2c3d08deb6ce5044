import type { AnyContract } from '@banyan/kernel';
import { catalog } from './catalog.js';
import { identity } from './identity.js';
import { inventory } from './inventory.js';
import { notifications } from './notifications.js';
import { orders } from './orders.js';
import { payments } from './payments.js';
import { shipping } from './shipping.js';

export { NewProduct, Product, ProductChanges, catalog } from './catalog.js';
export { Address, Instant, PageInput, Quantity, Sku, page } from './common.js';
export { Email, PersonName, PublicJwk, User, identity } from './identity.js';
export { Reservation, Stock, StockLine, inventory } from './inventory.js';
export { Message, notifications } from './notifications.js';
export { Cart, Order, OrderItem, OrderStatus, PaymentMethod, orders } from './orders.js';
export { Payment, PaymentStatus, Refund, payments } from './payments.js';
export { Shipment, ShipmentStatus, shipping } from './shipping.js';

/** What every process with contexts calls, whichever they are: access tokens are checked with these keys. */
export const calledByAll: readonly string[] = ['identity.jwks'];

/** Every context there is, by name: what the map, the docs and the proxy's routes are made from. */
export const contracts: readonly AnyContract[] = [
  identity,
  catalog,
  inventory,
  orders,
  payments,
  shipping,
  notifications,
];
