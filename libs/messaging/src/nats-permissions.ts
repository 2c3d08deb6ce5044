import { createHmac } from 'node:crypto';
import type { AnyContract, Side } from '@banyan/kernel';
import {
  callSubject,
  deliverSubject,
  eventConsumer,
  eventStream,
  eventSubject,
  giveBackSubject,
  heardBy,
  inboxPrefix,
  logStream,
  logSubject,
  natsUser,
  queueGroup,
} from './subjects.js';

/** What a kind of process may do on NATS. Whatever is not named is refused. */
export interface NatsUser {
  user: string;
  /** Subjects that it may send to; `*` stands for one word, `>` for the rest. */
  publish: string[];
  /** Subjects that it may listen to; with a second word, only as one of that queue group. */
  subscribe: string[];
  /** May answer what it is asked, wherever the asker listens. */
  answers: boolean;
}

const sides: readonly Side[] = ['monolith', 'service'];
const onBothSides = (subject: (side: Side) => string): string[] => sides.map(subject);

/**
 * One user for each kind of process, with the rights that follow from the contracts: what a context serves, calls,
 * publishes and subscribes to. `everyone` names the operations that every process with contexts calls.
 */
export function natsUsers(contracts: readonly AnyContract[], everyone: readonly string[]): NatsUser[] {
  const system = new System(contracts);
  const services = contracts.map((contract) => service(system, contract, everyone));
  return [monolith(system), ...services, ...contracts.map(({ name }) => bridge(name)), controlPlane(system)].map(
    ({ publish, subscribe, ...user }) => ({
      ...user,
      publish: [...new Set(publish)].sort(),
      // Nobody hears another one's answers.
      subscribe: [...new Set([...subscribe, `${inboxPrefix(user.user)}.>`])].sort(),
    }),
  );
}

/** Derived, so that whoever starts the processes needs to keep one secret, and each process knows its own password only. */
export const natsPassword = (secret: string, user: string): string =>
  createHmac('sha256', secret).update(`banyan:nats:${user}`).digest('base64url');

/** All of the contexts in one process. It calls, and delivers to, those that have left. */
function monolith(system: System): NatsUser {
  const names = system.contracts.map(({ name }) => name);
  const subscribers = names.filter((name) => system.producersOf(name).length > 0);
  return {
    user: natsUser.monolith,
    publish: [
      ...names.map((name) => callSubject('service', name, '*')),
      ...subscribers.map((name) => deliverSubject('service', name)),
      ...new Set(
        subscribers.flatMap((name) => system.producersOf(name).map((each) => giveBackSubject('service', each))),
      ),
      ...names.flatMap((name) => system.eventsOf(name)),
      ...subscribers.flatMap(takes),
    ],
    subscribe: system.contracts.flatMap((contract) => served('monolith', contract, system.contracts)),
    answers: true,
  };
}

/** One context. It calls and hears what its contract names, on whichever side that is. */
function service(system: System, contract: AnyContract, everyone: readonly string[]): NatsUser {
  const { name, calls = [] } = contract;
  const heard = system.subscribersOf(name);
  const hears = system.producersOf(name);
  return {
    user: natsUser.service(name),
    publish: [
      // Its own routes, while the monolith owns it.
      callSubject('monolith', name, '*'),
      ...[...calls, ...everyone].flatMap((call) => {
        const [context, operation] = call.split('.') as [string, string];
        return onBothSides((side) => callSubject(side, context, operation));
      }),
      ...heard.flatMap((subscriber) => onBothSides((side) => deliverSubject(side, subscriber))),
      ...hears.flatMap((producer) => onBothSides((side) => giveBackSubject(side, producer))),
      ...system.eventsOf(name),
      // It looks at the streams that it publishes into, and at how far they are taken; it takes from its own.
      ...heard.flatMap((subscriber) => [
        `$JS.API.STREAM.INFO.${eventStream(subscriber)}`,
        `$JS.API.CONSUMER.INFO.${eventStream(subscriber)}.${eventConsumer(subscriber)}`,
      ]),
      ...(hears.length > 0 ? takes(name) : []),
    ],
    subscribe: served('service', contract, system.contracts),
    answers: true,
  };
}

/** Puts one context's log into a stream, and takes it out again, whichever side the owner is. */
function bridge(context: string): NatsUser {
  return {
    user: natsUser.bridge(context),
    publish: [
      ...onBothSides((side) => logSubject(context, side)),
      ...sides.flatMap((side) => {
        const stream = logStream(context, side);
        // A follower reads without acknowledging, under a name of its own each time, from a place that it has looked up.
        return [...reads(stream, '*'), `$JS.API.STREAM.MSG.GET.${stream}`];
      }),
    ],
    subscribe: [],
    answers: false,
  };
}

/** Compares reads: it asks both sides, and nothing but queries. */
function controlPlane({ contracts }: System): NatsUser {
  const queries = contracts.flatMap(({ name, queries }) => Object.keys(queries).map((query) => [name, query] as const));
  return {
    user: natsUser.controlPlane,
    publish: queries.flatMap(([context, query]) => onBothSides((side) => callSubject(side, context, query))),
    subscribe: [],
    answers: false,
  };
}

/** What one side of a context listens to. */
const served = (side: Side, contract: AnyContract, all: readonly AnyContract[]): string[] =>
  heardBy(side, contract, all).map(({ subject }) => `${subject} ${queueGroup(side, contract.name)}`);

/** Declares a stream and reads it. Neither changes nor deletes one: that is for people, with a user of their own. */
function reads(stream: string, consumer: string): string[] {
  return [
    `$JS.API.STREAM.CREATE.${stream}`,
    `$JS.API.STREAM.INFO.${stream}`,
    `$JS.API.CONSUMER.CREATE.${stream}.${consumer}`,
    `$JS.API.CONSUMER.INFO.${stream}.${consumer}`,
    `$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`,
  ];
}

const takes = (context: string): string[] => [
  ...reads(eventStream(context), eventConsumer(context)),
  `$JS.ACK.${eventStream(context)}.${eventConsumer(context)}.>`,
];

/** Who hears whom. */
class System {
  constructor(readonly contracts: readonly AnyContract[]) {}

  /** Contexts that react to events of this one. */
  subscribersOf(context: string): string[] {
    return this.contracts.filter(({ subscribes }) => subscribes.some((event) => isOf(context, event))).map(nameOf);
  }

  /** Contexts whose events this one reacts to. */
  producersOf(context: string): string[] {
    const subscribes = this.contracts.find(({ name }) => name === context)?.subscribes ?? [];
    return this.contracts.map(nameOf).filter((name) => subscribes.some((event) => isOf(name, event)));
  }

  /** Where this context's events go. */
  eventsOf(context: string): string[] {
    return this.contracts.flatMap(({ name, subscribes }) =>
      subscribes.filter((event) => isOf(context, event)).map((event) => eventSubject(name, event)),
    );
  }
}

const nameOf = ({ name }: AnyContract): string => name;
const isOf = (context: string, event: string): boolean => event.startsWith(`${context}.`);
