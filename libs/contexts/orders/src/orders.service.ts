import { orders, shipping } from '@banyan/contracts';
import type { Actor, Id } from '@banyan/kernel';
import { hasRole } from '@banyan/kernel';
import {
  type Client,
  type CommandContext,
  type Handlers,
  InjectClient,
  type Preparations,
  type QueryContext,
  Sagas,
  Serves,
} from '@banyan/messaging';
import { decodeCursor, encodeCursor, fail } from '@banyan/platform/http';
import { z } from 'zod';
import { CartStore } from './cart.store.js';
import { CHECKOUT, type CheckoutData } from './checkout.saga.js';
import { cartOf, cartWith, checkOut, showCart } from './domain/cart.js';
import { IllegalMove, mayCancel } from './domain/order.js';
import { OrderMoves } from './order-moves.js';
import { type OrderShown, OrdersStore } from './orders.store.js';

type Contract = typeof orders;
type ShippingClient = Client<typeof shipping>;
type Input<Name extends keyof Contract['operations']> = z.output<Contract['operations'][Name]['input']>;

/** Where the next page starts: after this order. */
const Position = z.tuple([z.uuid()]);

/** Carts and orders of the calling customer. */
@Serves(orders)
export class OrdersService implements Handlers<Contract> {
  constructor(
    private readonly store: OrdersStore,
    private readonly carts: CartStore,
    private readonly moves: OrderMoves,
    private readonly sagas: Sagas,
    @InjectClient(shipping) private readonly shipping: ShippingClient,
  ) {}

  readonly prepare: Preparations<Contract> = {
    /**
     * Asked before the order is cancelled: whatever the checkout is doing at this moment, from here on no shipment
     * of this order can leave, or the order cannot be cancelled any more.
     */
    cancelOrder: async ({ id }, { actor }) => {
      const order = await this.#own(id, actor);
      if (!mayCancel(order.status)) return { shipment: 'none' };
      const { outcome } = await this.shipping.cancelShipment({ orderId: id });
      return { shipment: outcome };
    },
  };

  async cart(_: Input<'cart'>, { actor }: QueryContext) {
    const { version, lines } = await this.carts.read(customerOf(actor));
    return showCart(cartOf(version, lines));
  }

  async setCartItem({ sku, quantity }: Input<'setCartItem'>, { actor, now }: CommandContext) {
    const { version, lines } = await this.carts.put(customerOf(actor), sku, quantity, now);
    // Decided on what the cart has become: a refusal rolls back what was written.
    return showCart(cartWith(sku, version, lines));
  }

  async removeCartItem({ sku }: Input<'removeCartItem'>, { actor, now }: CommandContext) {
    const { version, lines } = await this.carts.remove(customerOf(actor), sku, now);
    return showCart(cartOf(version, lines));
  }

  async placeOrder({ shippingAddress, paymentMethod }: Input<'placeOrder'>, ctx: CommandContext): Promise<OrderShown> {
    const customerId = customerOf(ctx.actor);
    const lines = await this.carts.take(customerId, ctx.now);
    const order: OrderShown = {
      id: ctx.newId(),
      status: 'pending',
      ...checkOut(lines),
      shippingAddress,
      payment: null,
      shipment: null,
      createdAt: ctx.now.toISOString(),
    };
    await this.store.insert(order, customerId);
    const { id: orderId, items, total } = order;
    await this.sagas.start<CheckoutData>(
      CHECKOUT,
      orderId,
      {
        orderId,
        customerId,
        total,
        method: paymentMethod,
        address: shippingAddress,
        lines: items.map(({ sku, quantity }) => ({ sku, quantity })),
      },
      ctx,
    );
    ctx.emit(orders.events.OrderPlaced, orderId, { orderId, customerId, items, total });
    return order;
  }

  async order({ id }: Input<'order'>, { actor }: QueryContext): Promise<OrderShown> {
    return hasRole(actor, 'staff') ? (await this.#found(id)).order : this.#own(id, actor);
  }

  async orders({ limit, cursor }: Input<'orders'>, { actor }: QueryContext) {
    const after = decodeCursor(cursor, Position)?.[0];
    const whose = actor.kind === 'system' ? 'everybody' : { customerId: customerOf(actor) };
    const found = await this.store.list(whose, limit + 1, after);
    const items = found.slice(0, limit);
    return { items, nextCursor: found.length > limit ? encodeCursor([items.at(-1)!.id]) : null };
  }

  async cancelOrder({ id }: Input<'cancelOrder'>, ctx: CommandContext<{ shipment: string }>): Promise<OrderShown> {
    await this.#own(id, ctx.actor);
    if (ctx.prepared.shipment === 'dispatched') throw notCancellable('shipped');
    // The saga's row first, as its own steps do: who takes both locks in one order cannot meet in a deadlock.
    await this.sagas.cancel(CHECKOUT, id, ctx);
    try {
      await this.moves.move(id, { type: 'cancel' }, ctx);
    } catch (error) {
      throw error instanceof IllegalMove ? notCancellable(error.status) : error;
    }
    return this.#own(id, ctx.actor);
  }

  async #found(id: Id) {
    const found = await this.store.find(id);
    if (!found) throw notFound();
    return found;
  }

  /** Somebody else's order is as good as none. */
  async #own(id: Id, actor: Actor): Promise<OrderShown> {
    const { order, customerId } = await this.#found(id);
    if (customerId !== customerOf(actor)) throw notFound();
    return order;
  }
}

const notFound = () => orders.fail('ORDER_NOT_FOUND', 'You have no such order');

const notCancellable = (status: string) =>
  orders.fail('ORDER_NOT_CANCELLABLE', `The order is ${status}; only pending and confirmed ones can be cancelled`, {
    status,
  });

/** Carts and orders belong to users; the system has none. */
function customerOf(actor: Actor): Id {
  if (actor.kind !== 'user') throw fail('FORBIDDEN', 'Only users have carts and orders');
  return actor.id;
}
