// Our outbox, relay and inbox on two schemas of one Postgres; the effect of an event is its row in the inbox.
import 'reflect-metadata';
import { event, newId, system } from '@banyan/kernel';
import { Database } from '@banyan/platform/database';
import { z } from 'zod';
// The engine below the door: what a whole app adds around it is not the question here.
import { Inbox } from '../../../libs/messaging/dist/inbox.js';
import { Relay } from '../../../libs/messaging/dist/relay.js';
import { UnitOfWork } from '../../../libs/messaging/dist/unit-of-work.js';
import { measureHandOff } from './measure.mjs';

const { urls, ...measure } = JSON.parse(process.env.BENCH_CASE);
const Happened = {
  ...event(
    1,
    'order',
    z.strictObject({
      id: z.string(),
      total: z.int(),
      currency: z.string(),
      items: z.array(z.strictObject({ sku: z.string(), quantity: z.int() })),
    }),
  ),
  name: 'orders.Happened',
};
const orders = new Database({ context: 'orders', url: urls.orders, max: 10 });
const notifications = new Database({ context: 'notifications', url: urls.notifications, max: 10 });
const actor = system('bench');
let handler;
const inbox = new Inbox(
  new UnitOfWork(
    'notifications',
    notifications,
    'monolith',
    () => [],
    () => {},
  ),
  [{ event: Happened, run: ({ data }) => handler(data) }],
);
const unit = new UnitOfWork(
  'orders',
  orders,
  'monolith',
  () => ['notifications'],
  () => relay.wake(),
);
const relay = new Relay(unit, (_subscriber, events) => inbox.receive(events));

const put = (payloads) => {
  const [id, at] = [newId(), new Date()];
  const envelope = {
    id,
    context: 'orders',
    operation: 'bench',
    input: {},
    actor,
    at: at.getTime(),
    deadline: Infinity,
  };
  return unit.run({ id, at, actor, envelope }, async (ctx) => {
    for (const data of payloads) ctx.emit(Happened, data.id, data);
  });
};

await measureHandOff(
  {
    async start(handle) {
      handler = handle;
      relay.start();
    },
    put,
    putOne: (data) => put([data]),
    async stop() {
      await relay.stop();
      await Promise.all([orders.close(), notifications.close()]);
    },
  },
  measure,
);
