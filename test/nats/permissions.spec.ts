import { calledByAll, contracts } from '@banyan/contracts';
import type { AnyContract } from '@banyan/kernel';
import { natsConfig, natsPassword, natsUsers } from '@banyan/messaging/nats-config';
import { type ServerProcess, startNats } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, unhurried } from './raw-client.spec-support.js';

/*
 * A real server with the generated configuration. Every kind of process tries every subject there is, and some that
 * nobody should know of. What it may do is said here a second time, in other words than in the code.
 */
const secret = 'the secret that all passwords of this test derive from';
const users = natsUsers(contracts, calledByAll);
const names = contracts.map(({ name }) => name);
const sides = ['monolith', 'service'];

let server: ServerProcess;
beforeAll(async () => {
  server = await startNats({ config: unhurried(natsConfig({ users, secret })) });
});
afterAll(() => server?.stop());

const contract = (name: string): AnyContract => contracts.find((each) => each.name === name)!;
const hears = (subscriber: string, event: string) => contract(subscriber).subscribes.includes(event);
const hearsOf = (subscriber: string, producer: string) =>
  contract(subscriber).subscribes.some((event) => event.split('.')[0] === producer);
const isHeard = (producer: string) => names.some((subscriber) => hearsOf(subscriber, producer));

/** Whom a user stands for: `orders-service` is the service of orders. */
function whoIs(user: string): { kind: string; context: string } {
  const [, context = '', kind = user] = /^(.*)-(service|bridge)$/.exec(user) ?? [];
  return { kind, context };
}

function maySend(user: string, subject: string): boolean {
  const { kind, context } = whoIs(user);
  const [root, what, ...rest] = subject.split('.') as [string, string, ...string[]];
  if (root === '$JS') return mayAsk(user, subject);
  if (root !== 'banyan' || subject.includes('*') || subject.includes('>')) return false;
  if (what === 'call') {
    const [side, called, operation] = rest as [string, string, string];
    if (rest.length !== 3 || !names.includes(called)) return false;
    if (kind === 'monolith') return side === 'service';
    if (kind === 'control-plane') return operation in contract(called).queries;
    if (kind !== 'service') return false;
    if (called === context && side === 'monolith') return true;
    const call = `${called}.${operation}`;
    return call === 'identity.jwks' || (contract(context).calls ?? []).includes(call);
  }
  if (what === 'deliver') {
    const [side, subscriber] = rest as [string, string];
    if (kind === 'monolith') return side === 'service' && contract(subscriber).subscribes.length > 0;
    return kind === 'service' && hearsOf(subscriber, context);
  }
  if (what === 'giveback') {
    const [side, producer] = rest as [string, string];
    if (kind === 'monolith') return side === 'service' && isHeard(producer);
    return kind === 'service' && hearsOf(context, producer);
  }
  if (what === 'events') {
    const [subscriber, producer, name] = rest as [string, string, string];
    if (!hears(subscriber, `${producer}.${name}`)) return false;
    return kind === 'monolith' || (kind === 'service' && context === producer);
  }
  return what === 'log' && kind === 'bridge' && rest[0] === context;
}

/** JetStream: nobody changes or empties a stream, or takes from another one's. */
function mayAsk(user: string, subject: string): boolean {
  const { kind, context } = whoIs(user);
  const stream = /banyan-(events|log)-[a-z-]+/.exec(subject)?.[0];
  if (!stream) return false;
  const own =
    kind === 'bridge'
      ? sides.some((side) => stream === `banyan-log-${context}-${side}`)
      : names.some(
          (name) =>
            stream === `banyan-events-${name}` &&
            contract(name).subscribes.length > 0 &&
            (kind === 'monolith' || (kind === 'service' && name === context)),
        );
  const verb = subject.replace(stream, 'S').replace(/^\$JS\.API\./, '');
  const consumer = kind === 'bridge' ? 'follower-1' : stream.replace('banyan-events-', '');
  if (own && ['STREAM.CREATE.S', 'STREAM.INFO.S'].includes(verb)) return true;
  if (own && ['CREATE', 'INFO', 'MSG.NEXT'].some((each) => verb === `CONSUMER.${each}.S.${consumer}`)) return true;
  if (own && kind === 'bridge') return verb === 'STREAM.MSG.GET.S';
  if (own) return verb.startsWith(`$JS.ACK.S.${consumer}.`);
  // Whoever publishes into a stream looks whether it is still the same one, and how far it has been taken.
  const reader = names.find((name) => stream === `banyan-events-${name}`);
  const looks = ['STREAM.INFO.S', `CONSUMER.INFO.S.${consumer}`].includes(verb);
  return looks && kind === 'service' && reader !== undefined && hearsOf(reader, context);
}

function mayHear(user: string, subject: string, queue: string): boolean {
  const { kind, context } = whoIs(user);
  if (subject === `_INBOX_${user}.>` || subject === `_INBOX_${user}.abc`) return true;
  const [root, what, side, served, operation] = subject.split('.') as string[];
  if (root !== 'banyan' || !['call', 'deliver', 'giveback'].includes(what!)) return false;
  const mine =
    kind === 'monolith' ? side === 'monolith' && names.includes(served!) : kind === 'service' && served === context;
  if (!mine || side !== kind || queue !== `banyan.${side}.${served}`) return false;
  if (what === 'call') return operation !== undefined && operation !== '>';
  return what === 'deliver' ? contract(served!).subscribes.length > 0 : isHeard(served!);
}

/** Everything that anybody sends somewhere in the system, and what nobody should. */
const toSend = [
  ...sides.flatMap((side) =>
    contracts.flatMap(({ name, operations }) => [
      ...[...Object.keys(operations), 'nothing'].map((operation) => `banyan.call.${side}.${name}.${operation}`),
      `banyan.deliver.${side}.${name}`,
      `banyan.giveback.${side}.${name}`,
      `banyan.log.${name}.${side}`,
    ]),
  ),
  ...names.flatMap((subscriber) =>
    contracts.flatMap(({ name, events }) =>
      [...Object.keys(events), 'Nothing'].map((event) => `banyan.events.${subscriber}.${name}.${event}`),
    ),
  ),
  ...[
    ...names.map((name) => ({ stream: `banyan-events-${name}`, consumers: [...new Set(['orders', name])] })),
    ...names.flatMap((name) =>
      sides.map((side) => ({ stream: `banyan-log-${name}-${side}`, consumers: ['follower-1'] })),
    ),
  ].flatMap(({ stream, consumers }) => [
    ...[
      'CREATE',
      'UPDATE',
      'INFO',
      'DELETE',
      'PURGE',
      'SNAPSHOT',
      'RESTORE',
      'MSG.GET',
      'MSG.DELETE',
      'LEADER.STEPDOWN',
    ].map((verb) => `$JS.API.STREAM.${verb}.${stream}`),
    ...['CREATE', 'NAMES', 'LIST'].map((verb) => `$JS.API.CONSUMER.${verb}.${stream}`),
    `$JS.API.DIRECT.GET.${stream}`,
    ...consumers.flatMap((consumer) => [
      ...['CREATE', 'DURABLE.CREATE', 'INFO', 'DELETE', 'MSG.NEXT', 'LEADER.STEPDOWN'].map(
        (verb) => `$JS.API.CONSUMER.${verb}.${stream}.${consumer}`,
      ),
      `$JS.API.CONSUMER.CREATE.${stream}.${consumer}.banyan.call.monolith.payments.refund`,
      `$JS.ACK.${stream}.${consumer}.1.1.1.1700000000000000000.0`,
    ]),
  ]),
  ...['$JS.API.INFO', '$JS.API.STREAM.LIST', '$JS.API.STREAM.NAMES', '$JS.API.STREAM.CREATE.others'],
  ...['$SYS.REQ.SERVER.PING', '$SYS.REQ.USER.INFO', '$KV.bucket.key', 'banyan', 'banyan.call', 'anything'],
  ...['banyan.call.monolith.nobody.pay', 'banyan.log.nobody.monolith', '_INBOX.abc'],
  // Answers go where the asker listens, and nowhere without having been asked.
  ...users.map(({ user }) => `_INBOX_${user}.abc`),
];

const toHear = [
  ...sides.flatMap((side) =>
    names.flatMap((name) =>
      [`banyan.call.${side}.${name}.*`, `banyan.deliver.${side}.${name}`, `banyan.giveback.${side}.${name}`].flatMap(
        (subject) => [
          { subject, queue: `banyan.${side}.${name}` },
          // A listener beside the queue hears what is said to another process.
          { subject, queue: '' },
          { subject, queue: 'my-own' },
        ],
      ),
    ),
  ),
  ...names.map((name) => ({ subject: `banyan.events.${name}.>`, queue: '' })),
  ...names.flatMap((name) => sides.map((side) => ({ subject: `banyan.log.${name}.${side}`, queue: '' }))),
  ...users.flatMap(({ user }) => [`_INBOX_${user}.>`, `_INBOX_${user}.abc`].map((subject) => ({ subject, queue: '' }))),
  ...[
    '>',
    '*',
    '*.>',
    'banyan.>',
    'banyan.*.*.*',
    'banyan.*.*.*.*',
    'banyan.call.>',
    '_INBOX.>',
    '*.abc',
    '$JS.>',
    '$SYS.>',
  ].map((subject) => ({ subject, queue: '' })),
];

describe('On a server with the generated configuration', () => {
  /** Of one user. */
  const tries = toSend.length + toHear.length;

  it.each(users.map(({ user }) => user))('%s does its own work, and everything else is refused', async (user) => {
    const client = await RawClient.connect(server.url, user, natsPassword(secret, user));
    try {
      for (const subject of toSend) client.publish(subject);
      const sending = new Set(await client.refusals());
      const isSent = (subject: string) => !sending.has(`Publish to "${subject}"`);
      expect(toSend.filter((subject) => isSent(subject) !== maySend(user, subject))).toEqual([]);

      for (const { subject, queue } of toHear) client.subscribe(subject, queue);
      const hearing = new Set(await client.refusals());
      const isHeardOf = ({ subject, queue }: (typeof toHear)[number]) =>
        !hearing.has(`Subscription to "${subject}"${queue && ` using queue "${queue}"`}`);
      expect(toHear.filter((each) => isHeardOf(each) !== mayHear(user, each.subject, each.queue))).toEqual([]);

      const refused = sending.size + hearing.size;
      // The monolith serves every context, the others one at most.
      expect(refused / tries).toBeGreaterThan(user === 'monolith' ? 0.8 : 0.9);
      // It has rights at all.
      expect(refused).toBeLessThan(tries - 3);
    } finally {
      client.close();
    }
  });

  it('all of them together try more than 10,000 times', () => {
    expect(users.length * tries).toBeGreaterThan(10_000);
  });

  it('nobody gets in without a user, with another password, or with that of another user', async () => {
    await expect(RawClient.connect(server.url)).rejects.toThrow(/Authorization Violation/);
    await expect(RawClient.connect(server.url, 'monolith', 'wrong')).rejects.toThrow(/Authorization Violation/);
    const other = natsPassword(secret, 'catalog-service');
    await expect(RawClient.connect(server.url, 'monolith', other)).rejects.toThrow(/Authorization Violation/);
  });
});

describe('The rights of one context', () => {
  const of = (user: string) => users.find((each) => each.user === user)!;

  it('are those that its contract names', () => {
    expect(of('shipping-service')).toEqual({
      user: 'shipping-service',
      publish: [
        '$JS.ACK.banyan-events-shipping.shipping.>',
        '$JS.API.CONSUMER.CREATE.banyan-events-shipping.shipping',
        '$JS.API.CONSUMER.INFO.banyan-events-orders.orders',
        '$JS.API.CONSUMER.INFO.banyan-events-shipping.shipping',
        '$JS.API.CONSUMER.MSG.NEXT.banyan-events-shipping.shipping',
        '$JS.API.STREAM.CREATE.banyan-events-shipping',
        '$JS.API.STREAM.INFO.banyan-events-orders',
        '$JS.API.STREAM.INFO.banyan-events-shipping',
        'banyan.call.monolith.identity.jwks',
        'banyan.call.monolith.shipping.*',
        'banyan.call.service.identity.jwks',
        'banyan.deliver.monolith.orders',
        'banyan.deliver.service.orders',
        'banyan.events.orders.shipping.ShipmentCancelled',
        'banyan.events.orders.shipping.ShipmentDelivered',
        'banyan.events.orders.shipping.ShipmentDispatched',
        'banyan.giveback.monolith.orders',
        'banyan.giveback.service.orders',
      ],
      subscribe: [
        '_INBOX_shipping-service.>',
        'banyan.call.service.shipping.* banyan.service.shipping',
        'banyan.deliver.service.shipping banyan.service.shipping',
        'banyan.giveback.service.shipping banyan.service.shipping',
      ],
      answers: true,
    });
  });

  it('grow with its contract, and with nothing else', () => {
    const curious = contracts.map((each) =>
      each.name === 'shipping' ? { ...each, calls: ['payments.payment'] } : each,
    );
    const grown = natsUsers(curious, calledByAll);
    const changed = grown.filter((each, at) => JSON.stringify(each) !== JSON.stringify(users[at]));
    expect(changed.map(({ user }) => user)).toEqual(['shipping-service']);
    expect(changed[0]!.publish.filter((subject) => !of('shipping-service').publish.includes(subject))).toEqual([
      'banyan.call.monolith.payments.payment',
      'banyan.call.service.payments.payment',
    ]);
  });
});
