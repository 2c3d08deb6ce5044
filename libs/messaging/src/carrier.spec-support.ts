import { randomUUID } from 'node:crypto';
import { newId } from '@banyan/kernel';
import type { TestDatabase } from '@banyan/testing';
import type { EventEnvelope, Receipt } from './envelope.js';
import { Inbox } from './inbox.js';
import type { EventConsumer, TakingOptions } from './jetstream-consumer.js';
import { EventStreams, type StreamLimits } from './jetstream.js';
import type { Nats } from './nats.js';
import { Relay, type RelayOptions, relayDefaults } from './relay.js';
import { counting } from './toy.spec-support.js';
import { takeTurn } from './turn.js';
import { UnitOfWork } from './unit-of-work.js';

/* From the outbox of `inventory` to the inbox of `orders`, without an app around it: for what takes many events. */

export interface CarrierOptions {
  /** Runs in the effect's transaction, before the effect. */
  react?: (data: { name: string; value: number }) => void | Promise<void>;
  /** Around each delivery by the relay itself. */
  deliver?: (events: EventEnvelope[], on: () => Promise<Receipt[]>) => Promise<Receipt[]>;
  relay?: Partial<RelayOptions>;
  taking?: Partial<TakingOptions>;
  limits?: Partial<StreamLimits>;
  /** Events go into streams; else they are only taken from there. */
  publishing?: boolean;
  /** Runs no relay, or takes nothing. */
  without?: 'relay' | 'consumer';
}

export interface Carrier {
  streams: EventStreams | undefined;
  relay: Relay;
  consumer: EventConsumer | undefined;
  stop(): Promise<void>;
}

const unitOf = (test: TestDatabase, context: string): UnitOfWork =>
  new UnitOfWork(
    context,
    test.database(context),
    'monolith',
    () => [],
    () => {},
  );

export function startCarrier(test: TestDatabase, nats: Nats | undefined, options: CarrierOptions = {}): Carrier {
  const { react = () => {}, deliver = (_, on) => on(), publishing = true } = options;
  const orders = test.database('orders');
  const inbox = new Inbox(unitOf(test, 'orders'), [
    {
      event: counting.events.Added,
      run: async ({ id, data, version }) => {
        const { name, value } = data as { name: string; value: number };
        await react({ name, value });
        await orders.query('insert into toy_heard (event_id, name, value, version) values ($1, $2, $3, $4)', [
          id,
          name,
          value,
          version,
        ]);
      },
    },
  ]);
  const relayOptions = { ...relayDefaults, sweepMs: 50, backoffMs: 20, watchMs: 300, ...options.relay };
  const streams = nats && new EventStreams(nats, { publishing, limits: options.limits });
  const relay = new Relay(
    unitOf(test, 'inventory'),
    (_subscriber, events) => deliver(events, () => inbox.receive(events)),
    relayOptions,
    () => true,
    streams,
  );
  const taker = {
    active: () => true,
    turn: (lost: () => void) => takeTurn(orders, lost),
    receive: (events: EventEnvelope[]) => inbox.receive(events),
    giveBack: (_producer: string, back: Parameters<Relay['takeBack']>[0]) => relay.takeBack(back),
  };
  const { attempts, backoffMs } = relayOptions;
  const consumer =
    options.without === 'consumer'
      ? undefined
      : streams?.subscribe('orders', taker, { attempts, backoffMs, ...options.taking });
  if (options.without !== 'relay') relay.start();
  return {
    streams,
    relay,
    consumer,
    async stop() {
      await consumer?.stop();
      await relay.stop();
    },
  };
}

export const counters = (count: number): string[] => Array.from({ length: count }, () => `c-${randomUUID()}`);

/** Events `from` to `to` of each of these counters, as one transaction of `inventory` leaves them behind. */
export async function emitAdded(test: TestDatabase, names: readonly string[], from: number, to: number): Promise<void> {
  const events = [];
  for (let value = from; value <= to; value++)
    for (const name of names)
      events.push({
        id: newId(),
        type: counting.events.Added.name,
        type_version: 1,
        aggregate: `counter/${name}`,
        data: { name, by: 1, value },
        at: new Date().toISOString(),
        subscribers: ['orders'],
      });
  for (let i = 0; i < events.length; i += 2_000)
    await test.database('inventory').query('select banyan_emit($1)', [JSON.stringify(events.slice(i, i + 2_000))]);
}

/** What `orders` has heard of each counter, in the order of the effects. */
export async function heardOf(test: TestDatabase, names: readonly string[]): Promise<Map<string, number[]>> {
  const rows = await test.admin<{ name: string; versions: number[] }>(
    `select name, array_agg(version::int order by seq) as versions from orders.toy_heard where name = any($1) group by name`,
    [names],
  );
  return new Map(rows.map(({ name, versions }) => [name, versions]));
}

export async function heardCount(test: TestDatabase, names: readonly string[]): Promise<number> {
  const rows = await test.admin<{ n: number }>('select count(*)::int as n from orders.toy_heard where name = any($1)', [
    names,
  ]);
  return rows[0]!.n;
}

export const oneTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);
