// Our outbox, relay and inbox on two schemas of one Postgres; the effect of an event is its row in the inbox.
import 'reflect-metadata';
import { event, newId, system } from '@banyan/kernel';
import { EventStreams } from '@banyan/messaging/jetstream';
import { Nats } from '@banyan/messaging/nats';
import { Database } from '@banyan/platform/database';
import { z } from 'zod';
// What a whole app adds around it is not the question here.
import { Inbox, Relay, relayDefaults, takeTurn, unitOfWork } from '../../support/messaging-engine.mjs';
import { measureHandOff } from './measure.mjs';

const { urls, natsUrl, ...measure } = JSON.parse(process.env.BENCH_CASE);
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
const inbox = new Inbox(unitOfWork('notifications', notifications), [
  { event: Happened, run: ({ data }) => handler(data) },
]);
const unit = unitOfWork('orders', orders, { subscribers: ['notifications'], wake: () => relay.wake() });
const deliver = (_subscriber, events) => inbox.receive(events);
const nats = natsUrl && (await Nats.connect({ servers: [natsUrl], tls: {} }, { name: 'monolith' }));
const streams = nats && new EventStreams(nats, { publishing: true });
const relay = new Relay(unit, deliver, relayDefaults, () => true, streams);
let consumer;

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
      await streams?.declare(['notifications']);
      consumer = streams?.subscribe('notifications', {
        active: () => true,
        turn: (lost) => takeTurn(notifications, lost),
        receive: (events) => inbox.receive(events),
        giveBack: (_producer, back) => relay.takeBack(back),
      });
      relay.start();
    },
    put,
    putOne: (data) => put([data]),
    async stop() {
      await consumer?.stop();
      await relay.stop();
      await nats?.close();
      await Promise.all([orders.close(), notifications.close()]);
    },
  },
  measure,
);
