import { jetstream } from '@nats-io/jetstream';
import { headers } from '@nats-io/transport-node';
import { readiness } from '@banyan/platform/telemetry';
import { type ServerProcess, eventually, startNats, testDatabase } from '@banyan/testing';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type CarrierOptions,
  counters,
  emitAdded,
  heardCount,
  heardOf,
  oneTo,
  startCarrier,
} from './carrier.spec-support.js';
import { deadLetters } from './dead-letters.js';
import { refuseServer } from './jetstream-declare.js';
import { EventStreams } from './jetstream.js';
import type { Nats } from './nats.js';
import { createToyTables, natsTo } from './toy.spec-support.js';

// What can go wrong with a stream, and what is done about it.
const test = testDatabase({ contexts: ['inventory', 'orders'] });
beforeAll(() => createToyTables(test));

const closing: (() => unknown)[] = [];
let names: string[];
beforeEach(async () => {
  names = counters(10);
  // Each spec has a broker of its own: what the one before has left behind is lost with it.
  await test.admin('truncate inventory.outbox, inventory.outbox_stream');
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function startBroker(config?: string): Promise<{ broker: ServerProcess; nats: Nats }> {
  const broker = await startNats({ config });
  closing.push(() => broker.stop());
  const nats = await natsTo(broker.url);
  closing.push(() => nats.close());
  return { broker, nats };
}
const carry = (nats: Nats | undefined, options: CarrierOptions = {}) => {
  const carrier = startCarrier(test, nats, options);
  closing.push(() => carrier.stop());
  return carrier;
};
const manager = (nats: Nats) => jetstream(nats.connection, { timeout: 20_000 }).jetstreamManager(false);
const rows = (where: string) =>
  test.admin<{ n: number }>(`select count(*)::int as n from inventory.outbox where ${where}`).then(([row]) => row!.n);
/** A relay settles a moment after the effect. */
const allDone = () => eventually(async () => expect(await rows(`state <> 'done'`)).toBe(0), { timeoutMs: 30_000 });
const allHeard = (each: number) =>
  eventually(
    async () => {
      expect(await heardCount(test, names)).toBe(names.length * each);
      const heard = await heardOf(test, names);
      for (const name of names) expect(heard.get(name)).toEqual(oneTo(each));
      return true;
    },
    // What was on its way to somebody who is gone comes again after 15 s.
    { timeoutMs: 40_000 },
  );

describe('a process does not start', () => {
  it('with a stream that has other settings, and changes nothing', async () => {
    const { nats } = await startBroker();
    const jsm = await manager(nats);
    await jsm.streams.add({ name: 'banyan-events-orders', subjects: ['banyan.events.orders.>'], max_msgs: 7 });
    await expect(new EventStreams(nats, { publishing: true }).declare(['orders'])).rejects.toThrow(
      /The stream banyan-events-orders has other settings than it should: retention is limits, not workqueue; discard is old, not new; max_msgs is 7, not -1; deny_delete is .*Nothing was changed/,
    );
    expect((await jsm.streams.info('banyan-events-orders')).config.max_msgs).toBe(7);
  });

  it('with a consumer that has other settings', async () => {
    const { nats } = await startBroker();
    await new EventStreams(nats, { publishing: true, limits: { inFlight: 5 } }).declare(['orders']);
    await expect(new EventStreams(nats, { publishing: true }).declare(['orders'])).rejects.toThrow(
      'The consumer orders of banyan-events-orders has other settings than it should: max_ack_pending is 5, not 1000.',
    );
  });

  it('where the broker has no JetStream for it', async () => {
    const { nats } = await startBroker('accounts { plain { users: [{ user: p, password: p }] } }\nno_auth_user: p');
    await expect(new EventStreams(nats, { publishing: true }).declare(['orders'])).rejects.toThrow(
      /has no JetStream for this user: start it with/,
    );
  });

  it('on a server that is too old; and what the operator may choose is no drift', async () => {
    const old = { where: 'broker:4222', serverVersion: '2.8.4', connection: { info: { jetstream: true } } };
    expect(() => refuseServer(old as unknown as Nats)).toThrow('NATS at broker:4222 is 2.8.4, and events need 2.9.0');
    const { nats } = await startBroker();
    await new EventStreams(nats, { publishing: true, limits: { maxBytes: 1_000_000 } }).declare(['orders']);
    await new EventStreams(nats, { publishing: true }).declare(['orders']);
  });
});

it('a full stream refuses: the rest waits in the outbox, and follows in order when there is room', async () => {
  const { nats } = await startBroker();
  const limits = { maxBytes: 20_000 };
  await new EventStreams(nats, { publishing: true, limits }).declare(['orders']);
  const publisher = carry(nats, { limits, without: 'consumer' });
  await emitAdded(test, names, 1, 20);
  await eventually(async () => expect(await rows(`last_error like '%maximum bytes exceeded%'`)).toBeGreaterThan(50));
  await eventually(async () => expect(await rows(`state = 'done'`)).toBeGreaterThan(10));
  expect((await publisher.relay.backlog()).pending).toBeGreaterThan(100);
  carry(nats, { limits, without: 'relay' });
  await allHeard(20);
  await allDone();
});

it('a stream that is deleted is made again, and gets again what was in it', async () => {
  const { nats } = await startBroker();
  await new EventStreams(nats, { publishing: true }).declare(['orders']);
  carry(nats, { without: 'consumer' });
  await emitAdded(test, names, 1, 5);
  await eventually(async () => expect(await rows(`state = 'done'`)).toBe(50));
  await (await manager(nats)).streams.delete('banyan-events-orders');
  carry(nats, { without: 'relay' });
  await emitAdded(test, names, 6, 8);
  await allHeard(8);
});

it('a stream that is deleted under its consumer is made again as well', async () => {
  const { nats } = await startBroker();
  carry(nats);
  await emitAdded(test, names, 1, 3);
  await allHeard(3);
  await (await manager(nats)).streams.delete('banyan-events-orders');
  await emitAdded(test, names, 4, 6);
  await allHeard(6);
});

it('a broker that comes back empty gets everything again that the subscriber has not', async () => {
  const { broker, nats } = await startBroker();
  await new EventStreams(nats, { publishing: true }).declare(['orders']);
  carry(nats, { without: 'consumer' });
  await emitAdded(test, names, 1, 5);
  await eventually(async () => expect(await rows(`state = 'done'`)).toBe(50));
  await broker.restart({ emptied: true });
  carry(nats, { without: 'relay' });
  await allHeard(5);
});

it('while the broker is away events wait, are counted, and readiness says so; then they go out in order', async () => {
  const { broker, nats } = await startBroker();
  const carrier = carry(nats);
  await emitAdded(test, names, 1, 2);
  await allHeard(2);
  await allDone();
  await broker.kill();
  await eventually(() => expect(nats.connected).toBe(false));
  await emitAdded(test, names, 3, 6);
  await eventually(async () => {
    const { degraded } = await readiness.report();
    return expect(degraded).toContainEqual(expect.stringMatching(/^events for orders: NATS at .* is away$/));
  });
  expect(await carrier.relay.backlog()).toMatchObject({ pending: 40, parked: 0 });
  // One that was being claimed when the broker went is put back.
  await eventually(async () => expect(await rows('attempts > 0')).toBe(20));
  await broker.restart();
  await allHeard(6);
  await eventually(async () => expect((await readiness.report()).degraded).toBeUndefined());
});

it('a running system is switched from direct to streams, back, and off the broker: nothing lost, nothing twice', async () => {
  const { broker, nats } = await startBroker();
  // What was on its way when one stopped comes again soon, and until then nothing goes back to its outbox: behind what is
  // in the stream it could not go on without a consumer.
  const options = { limits: { ackWaitMs: 1_000 }, taking: { patienceMs: 60_000, waiting: 10_000 } };
  const ways: (() => ReturnType<typeof carry>)[] = [
    () => carry(undefined),
    () => carry(nats, { ...options, publishing: true }),
    () => carry(nats, { ...options, publishing: false }),
    () => carry(nats, { ...options, publishing: true }),
  ];
  let sent = 0;
  for (const start of ways) {
    const carrier = start();
    await emitAdded(test, names, sent + 1, (sent += 20));
    // In the middle of it.
    await eventually(async () => expect(await heardCount(test, names)).toBeGreaterThan(names.length * (sent - 15)), {
      timeoutMs: 30_000,
    });
    await carrier.stop();
  }
  // What is in the stream now is taken by nobody any more.
  const publisher = carry(nats, { ...options, without: 'consumer' });
  await emitAdded(test, names, sent + 1, (sent += 5));
  await allDone();
  await publisher.stop();
  await broker.kill();
  carry(undefined);
  await allHeard(sent);
});

it('an event that is longer than the broker takes goes to its subscriber directly, in its place', async () => {
  const { nats } = await startBroker('max_payload: 8192');
  const long = 'x'.repeat(20_000);
  names = ['short', long];
  const direct = new Set<string>();
  carry(nats, {
    deliver: (events, on) => {
      for (const { subject, aggregateversion } of events) direct.add(`${subject} ${aggregateversion}`);
      return on();
    },
  });
  await emitAdded(test, names, 1, 3);
  await allHeard(3);
  expect(direct).toEqual(new Set(oneTo(3).map((version) => `counter/${long} ${version}`)));
});

it('an event that is published again, after the broker has forgotten it, happens once', async () => {
  const { nats } = await startBroker();
  const limits = { duplicateWindowMs: 200 };
  const { streams } = carry(nats, { limits });
  await emitAdded(test, names.slice(0, 1), 1, 1);
  await eventually(async () => expect(await heardCount(test, names)).toBe(1));
  const [row] = await test.admin<{ event_id: string; occurred_at: Date }>('select * from inventory.outbox');
  const event = {
    specversion: '1.0',
    id: row!.event_id,
    source: '/banyan/inventory',
    type: 'inventory.Added',
    subject: `counter/${names[0]}`,
    time: row!.occurred_at.toISOString(),
    datacontenttype: 'application/json',
    data: { name: names[0], by: 1, value: 1 },
    aggregateversion: 1,
    previous: null,
  } as const;
  const seqs = new Set<number>();
  await eventually(async () => {
    const [said] = await streams!.publish('orders', [event]);
    if (said?.verdict === 'published') seqs.add(said.seq);
    return seqs.size > 2;
  });
  await eventually(async () => expect((await streams!.state('orders'))?.waiting).toBe(0));
  expect(await heardCount(test, names)).toBe(1);
});

it('a message that nobody can read is put aside, and holds up nothing', async () => {
  const { nats } = await startBroker();
  const carrier = carry(nats);
  await emitAdded(test, names, 1, 1);
  await allHeard(1);
  await allDone();
  const { event_id } = (await test.admin<{ event_id: string }>('select event_id from inventory.outbox limit 1'))[0]!;
  const publish = (text: string, id?: string) => {
    const marked = headers();
    if (id) marked.set('Nats-Msg-Id', id);
    nats.connection.publish('banyan.events.orders.inventory.Added', text, { headers: marked });
  };
  publish('not JSON');
  publish('not JSON', 'not the id of an event');
  publish('{"specversion":"9"}', event_id.replace(/^........-..../, '00000000-0000'));
  // Of this one there is a row, as a stream has it that was filled by a newer process.
  await test.admin(
    `insert into inventory.outbox (event_id, subscriber, type, type_version, aggregate, version, data, occurred_at, state, due_at, via, seq)
     select overlay(event_id::text placing '1' from 1)::uuid, subscriber, type, 2, 'counter/new', 1, data, occurred_at, 'done', due_at, via, seq + 1000
     from inventory.outbox where event_id = $1`,
    [event_id],
  );
  publish('{"specversion":"9"}', `1${event_id.slice(1)}`);
  await emitAdded(test, names, 2, 3);
  await allHeard(3);
  await eventually(async () => expect((await carrier.streams!.state('orders'))?.waiting).toBe(0));
  expect(await deadLetters(test.database('inventory'))).toMatchObject([{ eventId: `1${event_id.slice(1)}` }]);
});

it('an event that its stream has lost is found by the one behind it', async () => {
  const { nats } = await startBroker();
  carry(nats, { taking: { patienceMs: 300 } });
  await emitAdded(test, names, 1, 2);
  await allHeard(2);
  // As if the subscriber had been set back to before the second.
  await test.admin(
    `with forgotten as (
       delete from orders.inbox where event_id in (select event_id from inventory.outbox where version = 2)
       returning event_id
     )
     delete from orders.toy_heard where event_id in (select event_id from forgotten)`,
  );
  await emitAdded(test, names, 3, 4);
  await allHeard(4);
});

it('one process takes at a time, and another one goes on when it is gone', async () => {
  const { broker, nats } = await startBroker();
  const other = await natsTo(broker.url);
  closing.push(() => other.close());
  const takers = new Set<string>();
  const takenBy = (who: string) => ({ react: () => void takers.add(who) });
  const first = carry(nats, takenBy('first'));
  await emitAdded(test, names, 1, 2);
  await allHeard(2);
  carry(other, takenBy('second'));
  // Taken a few at a time, for longer than it takes to find a turn free.
  for (let version = 3; version <= 12; version++) {
    await emitAdded(test, names, version, version);
    await allHeard(version);
    const until = Date.now() + 200;
    await eventually(() => Date.now() > until);
  }
  expect([...takers]).toEqual(['first']);
  await first.stop();
  await emitAdded(test, names, 13, 14);
  await allHeard(14);
  expect([...takers]).toEqual(['first', 'second']);
});
