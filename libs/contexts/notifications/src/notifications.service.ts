import { notifications } from '@banyan/contracts';
import { type Handlers, type QueryContext, Serves } from '@banyan/messaging';
import { NotificationsStore } from './notifications.store.js';

const latest = 100;

@Serves(notifications)
export class NotificationsService implements Handlers<typeof notifications> {
  constructor(private readonly store: NotificationsStore) {}

  /** The caller's own; who is not a user has had none. */
  async messages(_: object, { actor }: QueryContext) {
    const messages = actor.kind === 'user' ? await this.store.messagesTo(actor.id, latest) : [];
    return {
      items: messages.map(({ id, kind, subject, orderId, sentAt }) => ({
        id,
        kind,
        subject,
        orderId,
        sentAt: sentAt.toISOString(),
      })),
    };
  }
}
