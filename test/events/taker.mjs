// A process that takes events for `orders`, by a relay of its own or from a stream, and can be made to die by `kill -9` when
// an effect is committed and nobody has been told.
import 'reflect-metadata';
import { event } from '@banyan/kernel';
import { EventStreams } from '@banyan/messaging/jetstream';
import { Nats } from '@banyan/messaging/nats';
import { Database } from '@banyan/platform/database';
import { z } from 'zod';
import { Inbox, Relay, relayDefaults, takeTurn, unitOfWork } from '../support/messaging-engine.mjs';

const { urls, natsUrl, limits, diesAfter } = JSON.parse(process.env.TAKER);
const data = z.strictObject({ name: z.string(), by: z.int(), value: z.int() });
const Added = { ...event(1, 'counter', data), name: 'inventory.Added' };
const unitOf = (context) => unitOfWork(context, new Database({ context, url: urls[context], max: 4 }));
const orders = unitOf('orders');
const inbox = new Inbox(orders, [
  {
    event: Added,
    run: ({ id, data: { name, value }, version }) =>
      orders.db.query('insert into toy_heard (event_id, name, value, version) values ($1, $2, $3, $4)', [
        id,
        name,
        value,
        version,
      ]),
  },
]);

/** Batches of which some had an effect: what the one before left untold comes again first, and has none. */
let effects = 0;
const receive = async (events) => {
  const receipts = await inbox.receive(events);
  if (receipts.some(({ verdict }) => verdict === 'applied') && ++effects === diesAfter)
    process.kill(process.pid, 'SIGKILL');
  return receipts;
};

if (natsUrl) {
  const nats = await Nats.connect({ servers: [natsUrl], tls: {} }, { name: 'monolith', patienceMs: 60_000 });
  // What waits, however long, waits here: there is no outbox to give it back to.
  const giveBack = () => Promise.reject(new Error('nobody takes it back'));
  new EventStreams(nats, { publishing: true, limits }).subscribe(
    'orders',
    { active: () => true, turn: (lost) => takeTurn(orders.db, lost), receive, giveBack },
    { batch: 50 },
  );
} else {
  const options = { ...relayDefaults, batch: 50, leaseMs: 1_000, sweepMs: 50 };
  new Relay(unitOf('inventory'), (_subscriber, events) => receive(events), options).start();
}
