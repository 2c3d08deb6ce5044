import { identity, notifications, orders } from '@banyan/contracts';
import { type Actor, type AnyEvent, command, defineContext, newId } from '@banyan/kernel';
import { type Client, type CommandContext, Serves } from '@banyan/messaging';
import { type ContextApp, contextApp, eventually, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { NotificationsModule } from './index.js';
import { NotificationsStore } from './notifications.store.js';

const test = testDatabase({ contexts: ['identity', 'notifications'] });

const published = { ...identity.events, ...orders.events };

/** Publishes whatever a spec asks for, from the database of `identity`: real outbox, relay and inbox. */
const publisher = defineContext('identity', {
  routes: [],
  queries: {},
  commands: {
    publish: command({
      input: z.strictObject({ event: z.string(), aggregateId: z.string(), data: z.unknown() }),
      output: z.strictObject({}),
      key: (i) => i.aggregateId,
    }),
  },
  events: {},
  subscribes: [],
});

@Serves(publisher)
class Publisher {
  async publish(
    { event, aggregateId, data }: { event: string; aggregateId: string; data: unknown },
    ctx: CommandContext,
  ) {
    ctx.emit((published as Record<string, AnyEvent>)[event]!, aggregateId, data);
    return {};
  }
}

let shop: ContextApp;
let client: Client<typeof notifications>;
const logged: unknown[] = [];

beforeAll(async () => {
  const note = (...line: unknown[]) => void logged.push(line);
  shop = await contextApp({
    test,
    module: NotificationsModule,
    contracts: [publisher, notifications],
    providers: [Publisher],
    logger: { log: note, warn: note, error: note },
  });
  client = shop.client(notifications);
});
afterAll(() => shop?.close());

/** Each event in a millisecond of its own: messages are told apart by theirs. */
async function say(event: keyof typeof published, aggregateId: string, data: object): Promise<void> {
  await shop.client(publisher).publish({ event, aggregateId, data });
  const now = Date.now();
  await eventually(() => Date.now() > now, { intervalMs: 1 });
}
const as = (id: string): { actor: Actor } => ({ actor: { kind: 'user', id, roles: ['customer'] } });
const messagesOf = async (id: string) => (await client.messages({}, as(id))).items;
const received = (id: string, count: number) =>
  eventually(async () => expect(await messagesOf(id)).toHaveLength(count) ?? true, { timeoutMs: 20_000 });

async function newRecipient() {
  const userId = newId();
  await say('UserRegistered', userId, { userId, email: `${userId}@example.com`, name: 'Ada Lovelace' });
  await received(userId, 1);
  return userId;
}

describe('notifications', () => {
  it('greets a new user by name', async () => {
    const userId = await newRecipient();
    const [message] = await messagesOf(userId);
    expect(message).toMatchObject({ kind: 'welcome', orderId: null });
    const [row] = await test.admin('SELECT body FROM notifications.message WHERE user_id = $1', [userId]);
    expect(row?.body).toContain('Hello Ada Lovelace,');
  });

  it('tells each step of an order once, newest first', async () => {
    const customerId = await newRecipient();
    const orderId = newId();
    const order = { orderId, customerId };
    await say('OrderConfirmed', orderId, { ...order, total: { amount: 1299, currency: 'EUR' } });
    await say('OrderShipped', orderId, { ...order, trackingNumber: 'BN-1' });
    await say('OrderDelivered', orderId, order);
    await received(customerId, 4);
    const messages = await messagesOf(customerId);
    expect(messages.map(({ kind }) => kind)).toEqual([
      'order-delivered',
      'order-shipped',
      'order-confirmed',
      'welcome',
    ]);
    expect(messages[0]?.orderId).toBe(orderId);
  });

  it('tells of rejection and cancellation', async () => {
    const customerId = await newRecipient();
    const [rejected, cancelled] = [newId(), newId()];
    await say('OrderRejected', rejected, { orderId: rejected, customerId, reason: 'OUT_OF_STOCK' });
    await say('OrderCancelled', cancelled, { orderId: cancelled, customerId });
    await received(customerId, 3);
    const kinds = (await messagesOf(customerId)).map(({ kind }) => kind);
    expect(kinds.sort()).toEqual(['order-cancelled', 'order-rejected', 'welcome']);
  });

  it('writes to a customer it has not heard of yet, without a name', async () => {
    const [customerId, orderId] = [newId(), newId()];
    await say('OrderCancelled', orderId, { orderId, customerId });
    await received(customerId, 1);
  });

  it('keeps one message per event and kind', async () => {
    const store = shop.app.get(NotificationsStore);
    const message = { eventId: newId(), userId: newId(), orderId: null, subject: 's', body: 'b', sentAt: new Date() };
    expect(await store.addMessage({ ...message, id: newId(), kind: 'welcome' })).toBe(true);
    expect(await store.addMessage({ ...message, id: newId(), kind: 'welcome' })).toBe(false);
    expect(await store.addMessage({ ...message, id: newId(), kind: 'order-shipped' })).toBe(true);
  });

  it('shows everybody their own and nothing else', async () => {
    const userId = await newRecipient();
    expect(await messagesOf(newId())).toEqual([]);
    expect((await client.messages({}, { actor: { kind: 'anonymous' } })).items).toEqual([]);
    expect((await client.messages({}, { actor: { kind: 'user', id: newId(), roles: ['admin'] } })).items).toEqual([]);
    expect(await messagesOf(userId)).toHaveLength(1);
  });

  it('logs that a message went out, and nothing about whom it went to', async () => {
    const userId = await newRecipient();
    const text = JSON.stringify(logged);
    expect(text).toContain('message sent');
    for (const personal of ['Lovelace', '@example.com', userId]) expect(text).not.toContain(personal);
  });
});
