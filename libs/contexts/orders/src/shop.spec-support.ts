import { type Payment, catalog, inventory, orders, payments, shipping } from '@banyan/contracts';
import { type AnyContract, newId } from '@banyan/kernel';
import { type CommandContext, type EventOf, On, Serves, Subscribes } from '@banyan/messaging';
import { type AppAnswer, type ContextApp, type TestDatabase, contextApp } from '@banyan/testing';
import type { z } from 'zod';
import { OrdersModule } from './index.js';

/*
 * The orders context as it is, on the real engine and Postgres, among contexts that keep their state in memory and do
 * only what the contracts promise. What is tested here is how orders behaves towards them.
 */

type In<C extends AnyContract, Name extends string> = z.output<C['operations'][Name]['input']>;
type Lines = In<typeof inventory, 'reserve'>['lines'];
type Cancelled = EventOf<typeof orders.events.OrderCancelled>;

/** What the other contexts hold, by order. */
class World {
  stock = new Map<string, number>();
  reservations = new Map<string, { status: 'held' | 'committed' | 'released'; lines: Lines }>();
  payments = new Map<string, { id: string; status: z.output<typeof Payment>['status'] }>();
  shipments = new Map<string, { id: string; status: 'pending' | 'dispatched' | 'delivered' | 'cancelled' }>();
  /** Where a call about a new order has to wait: before it does anything, or after it has done it. */
  gate: { at: string; known: ReadonlySet<string>; reached: () => void; open: Promise<void> } | undefined;

  async pass(at: string, orderId: string): Promise<void> {
    if (this.gate?.at !== at || this.gate.known.has(orderId)) return;
    this.gate.reached();
    await this.gate.open;
  }

  /** What the order holds elsewhere. */
  of(orderId: string) {
    return {
      stock: this.reservations.get(orderId)?.status,
      payment: this.payments.get(orderId)?.status,
      shipment: this.shipments.get(orderId)?.status,
    };
  }
}
const world = new World();

@Serves(catalog)
class FakeCatalog {
  async createProduct({ sku, name, category, price }: In<typeof catalog, 'createProduct'>, ctx: CommandContext) {
    const id = ctx.newId();
    ctx.emit(catalog.events.ProductCreated, id, { productId: id, sku, name, category, price });
    return { id, sku, name, description: '', category, price, version: 1, updatedAt: ctx.now.toISOString() };
  }
}

@Serves(inventory)
@Subscribes(inventory)
class FakeInventory {
  async reserve({ orderId, lines }: In<typeof inventory, 'reserve'>, ctx: CommandContext) {
    const known = world.reservations.get(orderId);
    if (known?.status === 'released') throw inventory.fail('RESERVATION_CLOSED', 'Released');
    if (!known) {
      const short = lines.find(({ sku, quantity }) => (world.stock.get(sku) ?? 1e6) < quantity);
      if (short) throw inventory.fail('OUT_OF_STOCK', 'Too few', { sku: short.sku });
      world.reservations.set(orderId, { status: 'held', lines });
    }
    return { orderId, status: 'held', expiresAt: ctx.now.toISOString(), lines };
  }
  async commit({ orderId }: { orderId: string }, ctx: CommandContext) {
    const { status, lines } = world.reservations.get(orderId)!;
    if (status === 'released') throw inventory.fail('RESERVATION_CLOSED', 'Released');
    world.reservations.set(orderId, { status: 'committed', lines });
    return { orderId, status: 'committed', expiresAt: ctx.now.toISOString(), lines };
  }
  async release({ orderId }: { orderId: string }) {
    world.reservations.set(orderId, { status: 'released', lines: [] });
    return { orderId, status: 'released' };
  }
  @On(orders.events.OrderCancelled)
  async onOrderCancelled({ data }: Cancelled) {
    await this.release(data);
  }
}

@Serves(payments)
@Subscribes(payments)
class FakePayments {
  async authorise({ orderId, amount, method }: In<typeof payments, 'authorise'>, ctx: CommandContext) {
    const statuses = { tok_declined: 'declined', tok_3ds: 'requires_action' } as const;
    const known = world.payments.get(orderId);
    if (known?.status === 'voided') throw payments.fail('PAYMENT_CANCELLED', 'Cancelled before');
    const payment = known ?? { id: ctx.newId(), status: statuses[method as 'tok_3ds'] ?? 'authorised' };
    world.payments.set(orderId, payment);
    const { PaymentAuthorised, PaymentDeclined } = payments.events;
    const reference = { paymentId: payment.id, orderId };
    if (payment.status === 'authorised') ctx.emit(PaymentAuthorised, payment.id, { ...reference, amount });
    if (payment.status === 'declined') ctx.emit(PaymentDeclined, payment.id, { ...reference, reason: 'expired' });
    return { ...payment, orderId, amount, captured: { ...amount, amount: 0 }, refunded: { ...amount, amount: 0 } };
  }
  async capture({ orderId }: { orderId: string }, ctx: CommandContext) {
    return this.#change(orderId, 'captured', ctx);
  }
  async cancel({ orderId }: { orderId: string }, ctx: CommandContext) {
    const known = world.payments.get(orderId);
    if (!known) world.payments.set(orderId, { id: ctx.newId(), status: 'voided' });
    else if (known.status !== 'voided' && known.status !== 'declined') this.#change(orderId, 'voided', ctx);
    return { orderId, status: 'done' };
  }
  /** The customer answers the 3-D Secure challenge; the provider's reference is the order here. */
  async recordProviderEvent({ providerRef, type }: In<typeof payments, 'recordProviderEvent'>, ctx: CommandContext) {
    const { id: paymentId } = world.payments.get(providerRef)!;
    const reference = { paymentId, orderId: providerRef };
    const { ChallengePassed, PaymentDeclined } = payments.events;
    const authorised = type === 'payment.authorised';
    world.payments.set(providerRef, { id: paymentId, status: authorised ? 'authorised' : 'declined' });
    if (authorised) ctx.emit(ChallengePassed, paymentId, reference);
    else ctx.emit(PaymentDeclined, paymentId, { ...reference, reason: 'not you' });
    return { recorded: true };
  }
  @On(orders.events.OrderCancelled)
  async onOrderCancelled({ data }: Cancelled, ctx: CommandContext) {
    await this.cancel(data, ctx);
  }
  #change(orderId: string, status: 'captured' | 'voided', ctx: CommandContext) {
    const { id } = world.payments.get(orderId)!;
    world.payments.set(orderId, { id, status });
    const amount = { amount: 1, currency: 'EUR' };
    ctx.emit(payments.events.PaymentChanged, id, {
      paymentId: id,
      orderId,
      status,
      captured: amount,
      refunded: amount,
    });
    return { id, orderId, status, amount, captured: amount, refunded: amount };
  }
}

@Serves(shipping)
@Subscribes(shipping)
class FakeShipping {
  async createShipment({ orderId, address, items }: In<typeof shipping, 'createShipment'>, ctx: CommandContext) {
    const known = world.shipments.get(orderId);
    if (known?.status === 'cancelled') throw shipping.fail('SHIPMENT_CANCELLED', 'Stopped before');
    const shipment = known ?? { id: ctx.newId(), status: 'pending' as const };
    world.shipments.set(orderId, shipment);
    const createdAt = ctx.now.toISOString();
    return { ...shipment, orderId, trackingNumber: 'T1', address, items, events: [], createdAt };
  }
  async cancelShipment({ orderId }: { orderId: string }, ctx: CommandContext) {
    const known = world.shipments.get(orderId);
    if (known?.status === 'dispatched' || known?.status === 'delivered') return { orderId, outcome: 'dispatched' };
    world.shipments.set(orderId, { id: known?.id ?? ctx.newId(), status: 'cancelled' });
    if (known?.status === 'pending')
      ctx.emit(shipping.events.ShipmentCancelled, known.id, { shipmentId: known.id, orderId, trackingNumber: 'T1' });
    return { orderId, outcome: known ? 'cancelled' : 'none' };
  }
  /** The carrier speaks; the tracking number is the order here. */
  async recordCarrierEvent(
    { trackingNumber: orderId, status }: In<typeof shipping, 'recordCarrierEvent'>,
    ctx: CommandContext,
  ) {
    const { id } = world.shipments.get(orderId)!;
    world.shipments.set(orderId, { id, status });
    const { ShipmentDispatched, ShipmentDelivered } = shipping.events;
    const event = status === 'dispatched' ? ShipmentDispatched : ShipmentDelivered;
    ctx.emit(event, id, { shipmentId: id, orderId, trackingNumber: 'T1' });
    return { recorded: true };
  }
  @On(orders.events.OrderCancelled)
  async onOrderCancelled({ data }: Cancelled, ctx: CommandContext) {
    await this.cancelShipment(data, ctx);
  }
}

/** Calls that can be stopped at a gate: `before payments.authorise`, `after payments.authorise`. */
function gated(fake: abstract new () => object, name: string, operation: string): void {
  const run = fake.prototype[operation];
  fake.prototype[operation] = async function (input: { orderId: string }, ctx: unknown) {
    await world.pass(`before ${name}.${operation}`, input.orderId);
    const output = await run.call(this, input, ctx);
    await world.pass(`after ${name}.${operation}`, input.orderId);
    return output;
  };
}
gated(FakeInventory, 'inventory', 'reserve');
gated(FakeInventory, 'inventory', 'commit');
gated(FakeInventory, 'inventory', 'release');
gated(FakePayments, 'payments', 'authorise');
gated(FakeShipping, 'shipping', 'createShipment');

/** What a fake leaves out is not expected to be called. */
function complete(fake: abstract new () => object, contract: AnyContract): void {
  for (const name of Object.keys(contract.operations))
    if (!(name in fake.prototype))
      fake.prototype[name] = async () => Promise.reject(new Error(`${contract.name}.${name} was not expected`));
}
complete(FakeCatalog, catalog);
complete(FakeInventory, inventory);
complete(FakePayments, payments);
complete(FakeShipping, shipping);

/** The contexts whose databases a shop needs. */
export const shopContexts = ['catalog', 'orders', 'inventory', 'payments', 'shipping'];

export class Shop {
  readonly world = world;
  readonly client: ContextApp['client'];
  private constructor(private readonly app: ContextApp) {
    this.client = app.client;
  }

  static async open(test: TestDatabase): Promise<Shop> {
    const app = await contextApp({
      test,
      module: OrdersModule,
      contracts: [catalog, inventory, orders, payments, shipping],
      providers: [FakeCatalog, FakeInventory, FakePayments, FakeShipping],
      settings: { BANYAN_RATE_LIMITS: 'off' },
    });
    return new Shop(app);
  }

  close(): Promise<void> {
    return this.app.close();
  }

  customer(role: 'customer' | 'staff' = 'customer'): Visitor {
    return new Visitor(this.app, this.app.tokenOf(newId(), role));
  }

  /**
   * Stops the calls about orders of now on that come to this place, and none about earlier ones: `reached` when one is
   * there, and `open` lets it go on.
   */
  stopAt(at: string): { reached: Promise<void>; open: () => void } {
    const reached = Promise.withResolvers<void>();
    const opened = Promise.withResolvers<void>();
    const known = new Set(world.reservations.keys());
    world.gate = { at, known, reached: reached.resolve, open: opened.promise };
    const open = () => {
      world.gate = undefined;
      opened.resolve();
    };
    return { reached: reached.promise, open };
  }

  /** Puts a product on offer. */
  offer(sku: string, amount = 1299, currency = 'EUR') {
    const product = { sku, name: `The ${sku}`, category: 'all', price: { amount, currency } };
    return this.client(catalog).createProduct(product);
  }

  carrierSays(orderId: string, status: 'dispatched' | 'delivered') {
    const at = '2026-01-01T00:00:00Z';
    return this.client(shipping).recordCarrierEvent({ eventId: newId(), trackingNumber: orderId, status, at });
  }

  providerSays(orderId: string, type: 'payment.authorised' | 'payment.declined') {
    return this.client(payments).recordProviderEvent({ eventId: newId(), type, providerRef: orderId });
  }
}

export const address = { name: 'Ada', line1: 'Street 1', city: 'Berlin', postalCode: '10115', country: 'DE' };

/** Somebody who uses the shop over HTTP. */
export class Visitor {
  constructor(
    private readonly app: ContextApp,
    private readonly token: Promise<string>,
  ) {}

  async ask(
    method: 'GET' | 'PUT' | 'POST' | 'DELETE',
    url: string,
    body?: object,
    headers?: Record<string, string>,
  ): Promise<AppAnswer> {
    return this.app.request(method, url, { token: await this.token, body, headers });
  }

  put(sku: string, quantity = 1): Promise<AppAnswer> {
    return this.ask('PUT', `/v1/cart/items/${sku}`, { quantity });
  }

  order(paymentMethod = 'tok_ok', key = newId()): Promise<AppAnswer> {
    return this.ask('POST', '/v1/orders', { shippingAddress: address, paymentMethod }, { 'idempotency-key': key });
  }

  see(orderId: string, headers?: Record<string, string>): Promise<AppAnswer> {
    return this.ask('GET', `/v1/orders/${orderId}`, undefined, headers);
  }

  cancel(orderId: string): Promise<AppAnswer> {
    return this.ask('POST', `/v1/orders/${orderId}/cancel`);
  }

  /** Fills the cart and orders it; the id of the order. */
  async buy(sku: string, paymentMethod?: string): Promise<string> {
    await this.put(sku);
    return (await this.order(paymentMethod)).body.id;
  }
}
