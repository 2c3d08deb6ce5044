import type { AnyContract, Side } from '@banyan/kernel';

/**
 * Every name on NATS, from contracts alone: what a process publishes and what it listens to is known before it starts, so
 * that the server's permissions can be generated. Contexts and operations are identifiers: they have no dots.
 */

/** What a message is for: whoever listens hands it to the handler of that pattern. */
export const CALL = 'banyan.call';
export const DELIVERY = 'banyan.deliver';
export const GIVING_BACK = 'banyan.giveback';

/** A call of one operation. */
export const callSubject = (side: Side, context: string, operation: string): string =>
  `${CALL}.${side}.${context}.${operation}`;

/** Events for a context's inbox, from the relay itself. */
export const deliverSubject = (side: Side, context: string): string => `${DELIVERY}.${side}.${context}`;

/** Events that a subscriber cannot take, back to the outbox of the context that has published them. */
export const giveBackSubject = (side: Side, context: string): string => `${GIVING_BACK}.${side}.${context}`;

/** One side of a context, however many processes it has: each message goes to one of them. */
export const queueGroup = (side: Side, context: string): string => `banyan.${side}.${context}`;

/** What one side of a context listens to, as one of its queue group. */
export function heardBy(
  side: Side,
  { name, subscribes }: AnyContract,
  all: readonly AnyContract[],
): { subject: string; pattern: string }[] {
  const isHeard = all.some(({ subscribes }) => subscribes.some((event) => event.startsWith(`${name}.`)));
  return [
    { subject: callSubject(side, name, '*'), pattern: CALL },
    ...(subscribes.length > 0 ? [{ subject: deliverSubject(side, name), pattern: DELIVERY }] : []),
    ...(isHeard ? [{ subject: giveBackSubject(side, name), pattern: GIVING_BACK }] : []),
  ];
}

/** The stream of one subscriber: a full one, or a slow consumer, holds up nobody else's events. */
export const eventStream = (subscriber: string): string => `banyan-events-${subscriber}`;

/** One event on its way to one subscriber; `event` is its full name, `orders.OrderPlaced`. */
export const eventSubject = (subscriber: string, event: string): string => `banyan.events.${subscriber}.${event}`;

/** All that the stream of a subscriber takes. */
export const eventSubjects = (subscriber: string): string => `banyan.events.${subscriber}.>`;

/** The durable consumer of a subscriber, which all its processes pull from. */
export const eventConsumer = (subscriber: string): string => subscriber;

/** The log of one context, as the bridge reads it from the database of `side`. */
export const logStream = (context: string, side: Side): string => `banyan-log-${context}-${side}`;
export const logSubject = (context: string, side: Side): string => `banyan.log.${context}.${side}`;

/** A kind of process, as NATS knows it: one user each, with its own rights. */
export const natsUser = {
  monolith: 'monolith',
  service: (context: string): string => `${context}-service`,
  bridge: (context: string): string => `${context}-bridge`,
  controlPlane: 'control-plane',
} as const;

/** Where a user's answers arrive: nobody else may listen there. */
export const inboxPrefix = (user: string): string => `_INBOX_${user}`;

/** Is it an answer to somebody? */
export const isInbox = (subject: string): boolean => subject.startsWith(inboxPrefix(''));
