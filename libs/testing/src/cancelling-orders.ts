import { orders } from '@banyan/contracts';
import { Id, command, defineContext } from '@banyan/kernel';
import { type CommandContext, type Handlers, Serves } from '@banyan/messaging';
import { z } from 'zod';

/** A stand-in for the orders context that only cancels: for contexts that listen to `OrderCancelled`. */
export const cancellingOrders = defineContext('orders', {
  routes: [],
  queries: {},
  commands: {
    cancel: command({ input: z.strictObject({ orderId: Id }), output: z.strictObject({}), key: (i) => i.orderId }),
  },
  events: { OrderCancelled: orders.events.OrderCancelled },
  subscribes: [],
});

/** Serves `cancellingOrders`: publishes the event, for a customer that nobody knows. */
@Serves(cancellingOrders)
export class CancellingOrders implements Handlers<typeof cancellingOrders> {
  async cancel({ orderId }: { orderId: string }, ctx: CommandContext) {
    ctx.emit(cancellingOrders.events.OrderCancelled, orderId, { orderId, customerId: ctx.newId() });
    return {};
  }
}
