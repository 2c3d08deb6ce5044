import { inventory, orders } from '@banyan/contracts';
import { type CommandContext, type EventOf, On, Subscribes } from '@banyan/messaging';
import { InventoryService } from './inventory.service.js';

/** What inventory does when others publish. */
@Subscribes(inventory)
export class InventoryEvents {
  constructor(private readonly service: InventoryService) {}

  /** Held or sold, the goods of a cancelled order are back on the shelf. */
  @On(orders.events.OrderCancelled)
  async onOrderCancelled(event: EventOf<typeof orders.events.OrderCancelled>, ctx: CommandContext): Promise<void> {
    await this.service.release({ orderId: event.data.orderId }, ctx);
  }
}
