import { type ServerProcess, eventually, startNats, testDatabase } from '@banyan/testing';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type Carrier,
  type CarrierOptions,
  counters,
  emitAdded,
  heardCount,
  heardOf,
  oneTo,
  startCarrier,
} from './carrier.spec-support.js';
import { deadLetters, redrive } from './dead-letters.js';
import type { EventEnvelope } from './envelope.js';
import type { Nats } from './nats.js';
import { eventSubject } from './subjects.js';
import { createToyTables, natsTo } from './toy.spec-support.js';

// The same for both carriers of events: many, with faults. What a single fault does to streams is in jetstream.spec.ts.
const test = testDatabase({ contexts: ['inventory', 'orders'] });
let broker: ServerProcess;
let nats: Nats;
beforeAll(() => createToyTables(test));

const running: { stop(): Promise<unknown> }[] = [];
beforeEach(async () => {
  broker = await startNats();
  nats = await natsTo(broker.url);
});
afterEach(async () => {
  try {
    await Promise.all(running.splice(0).map((each) => each.stop()));
  } finally {
    await nats?.close();
    await broker?.stop();
  }
});

const undone = async () =>
  (await test.admin<{ n: number }>(`select count(*)::int as n from inventory.outbox where state <> 'done'`))[0]!.n;
const everyFifth = (events: EventEnvelope[]) => events.filter((_, i) => i % 5 === 0);

describe.each(['direct', 'jetstream'] as const)('%s', (kind) => {
  const carry = (options: CarrierOptions = {}): Carrier => {
    const carrier = startCarrier(test, kind === 'jetstream' ? nats : undefined, options);
    running.push(carrier);
    return carrier;
  };

  it(
    'carries 20,000 events, a fifth of them twice, over two crashes of what carries them: each once, in order',
    { timeout: 360_000 },
    async () => {
      const names = counters(200);
      await emitAdded(test, names, 1, 50);
      let failing = 0;
      // Some fail at first; and every process of ours is one of two.
      const react = ({ value }: { value: number }) => {
        if (value % 25 === 7 && failing++ % 40 === 0) throw new Error('not now');
      };
      const twice: CarrierOptions['deliver'] = async (_events, on) => {
        const receipts = await on();
        if (kind === 'direct') await on();
        return receipts;
      };
      const options = { react, deliver: twice, relay: { attempts: 50 } };
      carry(options);
      carry(options);
      const duplicated = kind === 'jetstream' ? publishingAgain() : undefined;

      const reached = (share: number) =>
        eventually(async () => (await heardCount(test, names)) >= 20_000 * share, {
          timeoutMs: 120_000,
          intervalMs: 100,
        });
      await emitAdded(test, names, 51, 100);
      for (const share of [1 / 3, 1 / 2]) {
        await reached(share);
        if (kind === 'jetstream') await broker.restart();
        else {
          await running.shift()!.stop();
          carry(options);
        }
      }
      await reached(1);
      await eventually(async () => expect(await undone()).toBe(0), { timeoutMs: 60_000 });
      const again = await duplicated?.stop();

      expect(await heardCount(test, names)).toBe(20_000);
      const heard = await heardOf(test, names);
      for (const name of names) expect(heard.get(name)).toEqual(oneTo(100));
      if (kind === 'jetstream') expect(again).toBeGreaterThan(1_000);
    },
  );

  /** Puts events into the stream a second time, in a way that the broker cannot recognise. */
  function publishingAgain() {
    const encoder = new TextEncoder();
    let [again, from, stopped] = [0, 0, false];
    const loop = (async () => {
      while (!stopped) {
        const rows = await test.admin<{ event: EventEnvelope; seq: number }>(
          `select seq::int, json_build_object('specversion', '1.0', 'id', event_id, 'source', '/banyan/inventory', 'type', type,
             'subject', aggregate, 'time', to_char(occurred_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
             'datacontenttype', 'application/json', 'data', data, 'aggregateversion', version, 'previous', previous) as event
           from inventory.outbox where seq > $1 order by seq limit 1000`,
          [from],
        );
        from = rows.at(-1)?.seq ?? from;
        for (const event of everyFifth(rows.map((row) => row.event))) {
          nats.connection.publish(eventSubject('orders', event.type), encoder.encode(JSON.stringify(event)));
          again += 1;
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    loop.catch(() => {}); // told by whoever stops it
    const duplicating = {
      async stop() {
        stopped = true;
        await loop;
        return again;
      },
    };
    running.push(duplicating);
    return duplicating;
  }

  it('parks a poison event with hundreds behind it, and lets all others go on', { timeout: 240_000 }, async () => {
    const [bad, ...good] = counters(21) as [string, ...string[]];
    let poison = true;
    const carrier = carry({
      react: ({ name, value }) => {
        if (poison && name === bad && value === 3) throw new Error('cannot digest');
      },
      relay: { attempts: 4 },
      limits: { inFlight: 100 },
      taking: { waiting: 50 },
    });
    await emitAdded(test, [bad], 1, 400);
    await emitAdded(test, good, 1, 20);
    await eventually(async () => expect(await heardCount(test, good)).toBe(400), { timeoutMs: 60_000 });
    await eventually(async () => expect(await deadLetters(test.database('inventory'))).toHaveLength(1), {
      timeoutMs: 60_000,
    });
    const [letter] = await deadLetters(test.database('inventory'));
    expect(letter).toMatchObject({ subscriber: 'orders', attempts: 4, error: 'cannot digest' });
    expect(await heardCount(test, [bad])).toBe(2);
    // What waits behind it does so in the outbox, where it is seen, and leaves the stream to others.
    await eventually(async () => expect((await carrier.relay.backlog()).pending).toBe(397), { timeoutMs: 60_000 });
    if (kind === 'jetstream')
      await eventually(async () => expect((await carrier.streams!.state('orders'))?.waiting).toBe(0));

    poison = false;
    await redrive(test.database('inventory'));
    await eventually(async () => expect((await heardOf(test, [bad])).get(bad)).toEqual(oneTo(400)), {
      timeoutMs: 60_000,
    });
    expect(await deadLetters(test.database('inventory'))).toEqual([]);
  });

  it(
    'waits for a slow subscriber: nothing comes twice, and a stream has few on their way',
    { timeout: 120_000 },
    async () => {
      const names = counters(40);
      let runs = 0;
      const limits = { ackWaitMs: 1_000 };
      const carrier = carry({
        react: async () => {
          runs += 1;
          await new Promise((resolve) => setTimeout(resolve, 25));
        },
        relay: { leaseMs: 60_000 },
        taking: { batch: 20 },
        limits,
      });
      await emitAdded(test, names, 1, 5);
      let most = 0;
      await eventually(
        async () => {
          most = Math.max(most, (await carrier.streams?.state('orders'))?.onTheirWay ?? 0);
          return expect(await heardCount(test, names)).toBe(200);
        },
        { timeoutMs: 60_000 },
      );
      // One batch at work, another one waiting for it, and one of which the broker is just being told that it is done.
      if (kind === 'jetstream') expect(most).toBeGreaterThan(20);
      expect(most).toBeLessThanOrEqual(60);
      // 5 s of work, five times what the broker waits: whoever works on it says so.
      expect(runs).toBe(200);
      // It settles a moment after the effect.
      await eventually(async () => expect((await carrier.relay.backlog()).pending).toBe(0));
    },
  );
});
