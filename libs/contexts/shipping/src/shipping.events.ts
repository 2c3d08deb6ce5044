import { orders, shipping } from '@banyan/contracts';
import { type CommandContext, type EventOf, On, Subscribes } from '@banyan/messaging';
import { ShippingService } from './shipping.service.js';

@Subscribes(shipping)
export class ShippingEvents {
  constructor(private readonly service: ShippingService) {}

  @On(orders.events.OrderCancelled)
  async onOrderCancelled(event: EventOf<typeof orders.events.OrderCancelled>, ctx: CommandContext): Promise<void> {
    await this.service.stop(event.data.orderId, ctx);
  }
}
