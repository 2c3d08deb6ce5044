import { orders, payments } from '@banyan/contracts';
import { type CommandContext, type EventOf, On, Subscribes } from '@banyan/messaging';
import { PaymentService } from './payments.service.js';

@Subscribes(payments)
export class PaymentEvents {
  constructor(private readonly service: PaymentService) {}

  @On(orders.events.OrderCancelled)
  async onOrderCancelled(event: EventOf<typeof orders.events.OrderCancelled>, ctx: CommandContext): Promise<void> {
    await this.service.takeBack(event.data.orderId, ctx);
  }
}
