import { Injectable } from '@nestjs/common';
import { orders } from '@banyan/contracts';
import { type CommandContext, currentScope } from '@banyan/messaging';
import { type OrderCommand, type OrderFact, acceptedFrom, decide, outcomeOf } from './domain/order.js';
import { OrderWatch } from './order-watch.js';
import { type Found, OrdersStore, type Progress } from './orders.store.js';

/** Moves orders on: for commands, for the checkout saga and for other contexts' events alike. */
@Injectable()
export class OrderMoves {
  constructor(
    private readonly store: OrdersStore,
    private readonly watch: OrderWatch,
  ) {}

  /**
   * Does what the domain decides when `command` meets the order, and publishes it; nothing when it is so already.
   * One statement: the statuses to move from are the domain's, and the row tells whether it was in one of them.
   * Throws IllegalMove.
   */
  async move(orderId: string, command: OrderCommand, ctx: CommandContext, shown: Progress = {}): Promise<void> {
    const reason = command.type === 'reject' ? command.reason : undefined;
    const found = await this.store.move(
      { orderId, from: acceptedFrom(command), to: outcomeOf(command), reason, at: ctx.now },
      shown,
    );
    if (!found) throw new Error(`There is no order ${orderId}`);
    for (const fact of decide(found.was, command)) publish(fact, orderId, found, shown, ctx);
    // Whoever waits reads again at once, so not before there is something new to read.
    const tell = () => this.watch.changed(orderId);
    const afterCommit = currentScope()?.afterCommit;
    if (afterCommit) afterCommit(tell);
    else tell();
  }

  /** Shows news of an order's payment or shipment. */
  show(orderId: string, shown: Progress): Promise<void> {
    return this.store.show(orderId, shown);
  }
}

function publish(fact: OrderFact, orderId: string, { customerId, total }: Found, shown: Progress, ctx: CommandContext) {
  const order = { orderId, customerId };
  const { OrderConfirmed, OrderShipped, OrderDelivered, OrderRejected, OrderCancelled } = orders.events;
  switch (fact.type) {
    case 'OrderConfirmed':
      return ctx.emit(OrderConfirmed, orderId, { ...order, total });
    case 'OrderShipped':
      return ctx.emit(OrderShipped, orderId, { ...order, trackingNumber: shown.shipment?.trackingNumber ?? null });
    case 'OrderDelivered':
      return ctx.emit(OrderDelivered, orderId, order);
    case 'OrderRejected':
      return ctx.emit(OrderRejected, orderId, { ...order, reason: fact.reason });
    case 'OrderCancelled':
      return ctx.emit(OrderCancelled, orderId, order);
  }
}
