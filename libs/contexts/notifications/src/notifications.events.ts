import { Logger } from '@nestjs/common';
import { identity, notifications, orders } from '@banyan/contracts';
import { type CommandContext, type EventOf, On, Subscribes } from '@banyan/messaging';
import { type Occasion, wordingOf } from './domain/message.js';
import { NotificationsStore } from './notifications.store.js';

const { UserRegistered } = identity.events;
const { OrderConfirmed, OrderRejected, OrderCancelled, OrderShipped, OrderDelivered } = orders.events;

@Subscribes(notifications)
export class NotificationsEvents {
  private readonly log = new Logger('Notifications');

  constructor(private readonly store: NotificationsStore) {}

  @On(UserRegistered)
  async onUserRegistered({ id, data }: EventOf<typeof UserRegistered>, ctx: CommandContext): Promise<void> {
    await this.store.addRecipient(data);
    await this.send(id, data.userId, { kind: 'welcome' }, ctx);
  }

  @On(OrderConfirmed)
  async onOrderConfirmed({ id, data }: EventOf<typeof OrderConfirmed>, ctx: CommandContext): Promise<void> {
    const { customerId, orderId, total } = data;
    await this.send(id, customerId, { kind: 'order-confirmed', orderId, total }, ctx);
  }

  @On(OrderRejected)
  async onOrderRejected({ id, data }: EventOf<typeof OrderRejected>, ctx: CommandContext): Promise<void> {
    const { customerId, orderId, reason } = data;
    await this.send(id, customerId, { kind: 'order-rejected', orderId, reason }, ctx);
  }

  @On(OrderCancelled)
  async onOrderCancelled({ id, data }: EventOf<typeof OrderCancelled>, ctx: CommandContext): Promise<void> {
    await this.send(id, data.customerId, { kind: 'order-cancelled', orderId: data.orderId }, ctx);
  }

  @On(OrderShipped)
  async onOrderShipped({ id, data }: EventOf<typeof OrderShipped>, ctx: CommandContext): Promise<void> {
    const { customerId, orderId, trackingNumber } = data;
    await this.send(id, customerId, { kind: 'order-shipped', orderId, trackingNumber }, ctx);
  }

  @On(OrderDelivered)
  async onOrderDelivered({ id, data }: EventOf<typeof OrderDelivered>, ctx: CommandContext): Promise<void> {
    await this.send(id, data.customerId, { kind: 'order-delivered', orderId: data.orderId }, ctx);
  }

  /** Sending is writing the row: once per event and kind, in the transaction that takes the event in. */
  private async send(eventId: string, userId: string, occasion: Occasion, ctx: CommandContext): Promise<void> {
    const recipient = await this.store.recipient(userId);
    const orderId = 'orderId' in occasion ? occasion.orderId : null;
    const id = ctx.newId();
    const sent = await this.store.addMessage({
      id,
      eventId,
      kind: occasion.kind,
      userId,
      orderId,
      ...wordingOf(occasion, recipient?.name),
      sentAt: ctx.now,
    });
    if (sent) this.log.log({ msg: 'message sent', kind: occasion.kind, messageId: id, orderId });
  }
}
