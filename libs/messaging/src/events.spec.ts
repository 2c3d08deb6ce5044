import { randomUUID } from 'node:crypto';
import { type ServerProcess, eventually, startNats, testDatabase } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { deadLetters, redrive } from './dead-letters.js';
import type { EventEnvelope, Receipt } from './envelope.js';
import { EventStreams } from './jetstream.js';
import { Relay, relayDefaults } from './relay.js';
import { type ToyHooks, type Way, createToyTables, natsTo, startToy, ways } from './toy.spec-support.js';
import { UnitOfWork } from './unit-of-work.js';

const test = testDatabase({ contexts: ['inventory', 'orders'] });
beforeAll(() => createToyTables(test));

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});
const start = async (hooks: ToyHooks = {}, options: Parameters<typeof startToy>[2] = {}) => {
  const toy = await startToy(test, hooks, options);
  closing.push(toy.close);
  return toy;
};
const counter = () => `c-${randomUUID()}`;
const heard = (name: string) =>
  test.admin<{ value: number; version: number }>(
    'select value::int, version::int from orders.toy_heard where name = $1 order by seq',
    [name],
  );
const hears = (name: string, n: number) =>
  eventually(async () => expect(await heard(name)).toEqual(upTo(n)), { timeoutMs: 25_000 });
const upTo = (n: number) => Array.from({ length: n }, (_, i) => ({ value: i + 1, version: i + 1 }));
const undone = async () =>
  (await test.admin<{ n: number }>(`select count(*)::int as n from inventory.outbox where state <> 'done'`))[0]!.n;
const allDone = () => eventually(async () => expect(await undone()).toBe(0), { timeoutMs: 20_000 });

let broker: ServerProcess;
beforeAll(async () => {
  broker = await startNats();
});
afterAll(() => broker.stop());

/** What carries events: the relay itself, by every way there is, or streams, from which what failed goes back by that way. */
const carriers = [
  ...ways.map(([name, open]) => ({ name: `delivered directly ${name}`, open, streams: false })),
  ...ways.map(([name, open]) => ({ name: `through JetStream, back ${name}`, open, streams: true })),
];

// The conformance suite of event delivery; what takes longer is in test/events.
describe.each(carriers)('events $name', { timeout: 90_000 }, ({ open, streams }) => {
  let way: Way;
  let options: Parameters<typeof startToy>[2];
  beforeEach(async () => {
    way = await open();
    options = { placement: way.placement };
    if (!streams) return closing.push(way.close);
    const nats = await natsTo(broker.url);
    options.streams = new EventStreams(nats, { publishing: true });
    closing.push(way.close, () => nats.close());
  });
  const startWith = async (hooks: ToyHooks = {}) => {
    const toy = await startToy(test, { ...way.hooks, ...hooks }, options);
    closing.unshift(toy.close);
    return toy;
  };

  it('reach their subscriber once each, in order per aggregate', async () => {
    const toy = await startWith();
    const names = [counter(), counter(), counter()];
    await Promise.all(
      names.map(async (name) => {
        for (let i = 0; i < 20; i++) await toy.counting.add({ name, by: 1 });
      }),
    );
    for (const name of names) await hears(name, 20);
  });

  it('that are poison are parked after N tries, block only their own aggregate, and can be redriven', async () => {
    const [bad, good] = [counter(), counter()];
    let poison = true;
    const toy = await startWith({
      heard: ({ data }) => {
        if (poison && data.name === bad && data.value === 2) throw new Error('cannot digest');
      },
    });
    for (let i = 0; i < 3; i++) {
      await toy.counting.add({ name: bad, by: 1 });
      await toy.counting.add({ name: good, by: 1 });
    }
    await hears(good, 3);
    const parked = await eventually(
      async () => {
        const found = await deadLetters(test.database('inventory'));
        expect(found).toHaveLength(1);
        return found[0];
      },
      { timeoutMs: 20_000 },
    );
    expect(parked).toMatchObject({
      subscriber: 'orders',
      aggregate: `counter/${bad}`,
      attempts: 3,
      error: 'cannot digest',
    });
    expect(await heard(bad)).toEqual(upTo(1));

    poison = false;
    expect(await redrive(test.database('inventory'))).toBe(1);
    await hears(bad, 3);
    expect(await deadLetters(test.database('inventory'))).toEqual([]);
  });
});

it('an event survives the death of the process that wrote it: another process delivers it', async () => {
  const name = counter();
  const dead = await startToy(test, {}, { relay: { sweepMs: 3_600_000 } });
  await test.admin(`update inventory.outbox set state = 'done'`);
  const db = test.database('inventory');
  // What a process leaves behind that died between commit and delivery.
  await db.query(`select banyan_emit($1)`, [
    JSON.stringify([
      {
        id: randomUUID(),
        type: 'inventory.Added',
        type_version: 1,
        aggregate: `counter/${name}`,
        data: { name, by: 1, value: 1 },
        at: new Date().toISOString(),
        subscribers: ['orders'],
      },
    ]),
  ]);
  await dead.close();
  await start();
  await hears(name, 1);
});

describe('a relay', () => {
  // What others have left is theirs.
  beforeEach(() => test.admin(`update inventory.outbox set state = 'done'`));

  const unit = () =>
    new UnitOfWork(
      'inventory',
      test.database('inventory'),
      'monolith',
      () => [],
      () => {},
    );
  const name = counter();
  const emit = (count: number, aggregate = name) =>
    test.database('inventory').query(`select banyan_emit($1)`, [
      JSON.stringify(
        Array.from({ length: count }, (_, i) => ({
          id: randomUUID(),
          type: 'inventory.Added',
          type_version: 1,
          aggregate: `counter/${aggregate}`,
          data: { name: aggregate, by: 1, value: i + 1 },
          at: new Date().toISOString(),
          subscribers: ['orders'],
        })),
      ),
    ]);
  const relayWith = (deliver: (events: EventEnvelope[]) => Promise<Receipt[]>, options = {}) => {
    const relay = new Relay(unit(), (_subscriber, events) => deliver(events), {
      ...relayDefaults,
      sweepMs: 20,
      backoffMs: 1,
      ...options,
    });
    relay.start();
    closing.push(() => relay.stop());
    return relay;
  };
  const ack = (events: EventEnvelope[]): Receipt[] => events.map(({ id }) => ({ id, verdict: 'applied' }));

  it('shares the work with others without delivering anything twice or out of order', async () => {
    const seen: Record<string, number[]> = {};
    const aggregates = Array.from({ length: 10 }, counter);
    await Promise.all(aggregates.map((aggregate) => emit(30, aggregate)));
    for (let i = 0; i < 4; i++)
      relayWith(
        async (events) => {
          for (const event of events) (seen[event.subject] ??= []).push(event.aggregateversion);
          return ack(events);
        },
        { batch: 7 },
      );
    await allDone();
    for (const aggregate of aggregates)
      expect(seen[`counter/${aggregate}`]).toEqual(upTo(30).map(({ version }) => version));
  });

  it('takes over what a dead relay had claimed, once the lease is over', async () => {
    await emit(1);
    await test.admin(
      `update inventory.outbox set due_at = now() + interval '300 ms', attempts = 1 where state = 'pending'`,
    );
    const seen: string[] = [];
    relayWith(async (events) => {
      seen.push(...events.map(({ id }) => id));
      return ack(events);
    });
    await allDone();
    expect(seen).toHaveLength(1);
  });

  it('delivers again when the receipt got lost, and counts no try when the subscriber cannot be reached', async () => {
    await emit(1);
    let calls = 0;
    relayWith(
      async (events) => {
        calls += 1;
        if (calls < 8) throw new Error('no route');
        return ack(events);
      },
      { attempts: 3 },
    );
    await allDone();
    expect(calls).toBe(8);
  });

  it('holds back an event whose predecessor has not been applied', async () => {
    const order: number[] = [];
    let refuse = 3;
    await emit(3, counter());
    relayWith(async (events) =>
      events.map(({ id, aggregateversion }) => {
        if (aggregateversion === 1 && refuse-- > 0) return { id, verdict: 'failed', error: 'not yet' };
        if (aggregateversion > 1 && !order.includes(aggregateversion - 1)) return { id, verdict: 'gap' };
        order.push(aggregateversion);
        return { id, verdict: 'applied' };
      }),
    );
    await allDone();
    expect(order).toEqual([1, 2, 3]);
  });

  it('tells how much waits and for how long', async () => {
    await emit(2, counter());
    const relay = new Relay(unit(), async (_s, events) => ack(events));
    expect(await relay.backlog()).toMatchObject({ pending: 2, parked: 0 });
    relayWith(async (events) => ack(events));
    await allDone();
    expect(await relay.backlog()).toEqual({ pending: 0, parked: 0, oldestSeconds: 0 });
  });
});
