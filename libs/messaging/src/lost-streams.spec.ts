import { eventually, testDatabase } from '@banyan/testing';
import { afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { counters, emitAdded } from './carrier.spec-support.js';
import type { EventEnvelope } from './envelope.js';
import type { Publication, StreamState } from './jetstream.js';
import { Relay, type Streams, relayDefaults } from './relay.js';
import { createToyTables } from './toy.spec-support.js';
import { UnitOfWork } from './unit-of-work.js';

// A broker keeps what it has acknowledged in memory for a while. No real one loses that when its process is killed, only
// with its machine: so this one is made up.
const test = testDatabase({ contexts: ['inventory', 'orders'] });
beforeAll(() => createToyTables(test));

class ForgetfulBroker implements Streams {
  readonly publishing = true;
  connected = true;
  /** Does not tell how it stands; takes nothing, and says so, or not even that. */
  silent = false;
  full = false;
  deaf = false;
  taken = 0;
  published: string[] = [];
  #seq = 0;
  readonly #listeners = new Set<(connected: boolean) => void>();

  async publish(_subscriber: string, events: EventEnvelope[]): Promise<Publication[]> {
    return events.map(({ id }): Publication => {
      if (this.deaf) return { id, verdict: 'refused', error: 'no answer', silent: true };
      if (this.full) return { id, verdict: 'refused', error: 'maximum bytes exceeded', silent: false };
      this.published.push(id);
      return { id, verdict: 'published', via: 'the same stream', seq: ++this.#seq };
    });
  }

  async state(): Promise<StreamState> {
    if (this.silent) throw new Error('recovering');
    return { incarnation: 'the same stream', taken: this.taken, waiting: 0, onTheirWay: 0 };
  }

  onChange(listener: (connected: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  comesBack(): void {
    this.published = [];
    for (const listener of this.#listeners) listener(true);
  }
}

const relays: Relay[] = [];
afterEach(async () => {
  for (const relay of relays.splice(0)) await relay.stop();
});
beforeEach(() => test.admin('truncate inventory.outbox, inventory.outbox_stream'));

function start(broker: ForgetfulBroker): Relay {
  const unit = new UnitOfWork(
    'inventory',
    test.database('inventory'),
    'monolith',
    () => [],
    () => {},
  );
  const options = { ...relayDefaults, sweepMs: 20, watchMs: 60, backoffMs: 20 };
  const relay = new Relay(
    unit,
    () => Promise.reject(new Error('not directly')),
    options,
    () => true,
    broker,
  );
  relays.push(relay);
  relay.start();
  return relay;
}

const rows = async (where: string) =>
  (await test.admin<{ n: number }>(`select count(*)::int as n from inventory.outbox where ${where}`))[0]!.n;
const allDone = () => eventually(async () => expect(await rows(`state <> 'done'`)).toBe(0));
const age = (what: string) => test.admin(what.replaceAll('A NIGHT', `interval '10 hours'`));

it('what a broker took shortly before the connection broke is sent again, but for what was taken from it', async () => {
  const broker = new ForgetfulBroker();
  start(broker);
  await emitAdded(test, counters(10), 1, 1);
  await allDone();
  const [, , , , ...rest] = broker.published;
  broker.taken = 4;
  broker.comesBack();
  await eventually(() => expect(broker.published.sort()).toEqual(rest.sort()));
  await allDone();
});

it('however long nobody has seen it', async () => {
  const broker = new ForgetfulBroker();
  const former = start(broker);
  await emitAdded(test, counters(10), 1, 1);
  await allDone();
  await former.stop();
  await age('update inventory.outbox set due_at = due_at - A NIGHT');
  await age('update inventory.outbox_stream set seen_at = seen_at - A NIGHT');
  const before = broker.published;
  broker.published = [];
  start(broker);
  await eventually(() => expect(broker.published.sort()).toEqual(before.sort()));
});

it('what it took long before it was last seen is not', async () => {
  const broker = new ForgetfulBroker();
  const former = start(broker);
  await emitAdded(test, counters(3), 1, 1);
  await allDone();
  await age('update inventory.outbox set due_at = due_at - A NIGHT');
  await emitAdded(test, counters(2), 1, 1);
  await allDone();
  await former.stop();
  const young = broker.published.slice(3);
  broker.published = [];
  start(broker);
  await eventually(() => expect(broker.published.sort()).toEqual(young.sort()));
});

it('a broker that takes events before it tells how it stands is doubted all the same', async () => {
  const broker = new ForgetfulBroker();
  const former = start(broker);
  await emitAdded(test, counters(5), 1, 1);
  await allDone();
  await former.stop();
  const before = [...broker.published];

  // The machine of both was started anew.
  broker.silent = true;
  broker.published = [];
  start(broker);
  await emitAdded(test, counters(1), 1, 1);
  await allDone();
  expect(broker.published).toHaveLength(1);
  broker.silent = false;
  await eventually(() => expect(broker.published).toEqual(expect.arrayContaining(before)));
});

it('what waits for a full stream is set aside, and follows at once when there is room', async () => {
  const broker = new ForgetfulBroker();
  broker.full = true;
  start(broker);
  const names = counters(300);
  await emitAdded(test, names, 1, 5);
  await eventually(async () => expect(await rows(`due_at > now() + interval '1 minute'`)).toBeGreaterThan(900), {
    timeoutMs: 20_000,
  });
  broker.full = false;
  // What was set aside would be due after two minutes.
  await eventually(async () => expect(await rows(`state <> 'done'`)).toBe(0), { timeoutMs: 35_000 });
  expect(new Set(broker.published).size).toBe(1_500);
});

it.each(['full', 'deaf'] as const)('a stream that is %s is tried again and again', async (how) => {
  const broker = new ForgetfulBroker();
  broker[how] = true;
  start(broker);
  await emitAdded(test, counters(20), 1, 3);
  let tries = 0;
  const { publish } = broker;
  broker.publish = (...given) => (tries++, publish.apply(broker, given));
  await eventually(() => tries > 3);
  broker[how] = false;
  await eventually(async () => expect(await rows(`state <> 'done'`)).toBe(0), { timeoutMs: 40_000 });
});
