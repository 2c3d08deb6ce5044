import { Id, defineContext, query } from '@banyan/kernel';
import { z } from 'zod';
import { Instant } from './common.js';
import { asEachUser } from './identity.js';

export const Message = z.strictObject({
  id: Id,
  kind: z.string(),
  subject: z.string(),
  orderId: Id.nullable(),
  sentAt: Instant,
});

export const notifications = defineContext('notifications', {
  routes: [],
  queries: {
    /** What was sent to the calling user, newest first. */
    messages: query({
      input: z.strictObject({}),
      output: z.strictObject({ items: z.array(Message) }),
      ...asEachUser({}),
    }),
  },
  commands: {},
  events: {},
  subscribes: [
    'identity.UserRegistered',
    'orders.OrderConfirmed',
    'orders.OrderRejected',
    'orders.OrderCancelled',
    'orders.OrderShipped',
    'orders.OrderDelivered',
  ],
});
