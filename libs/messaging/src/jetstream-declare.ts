import {
  AckPolicy,
  type ConsumerConfig,
  type ConsumerInfo,
  DeliverPolicy,
  DiscardPolicy,
  JetStreamApiCodes,
  JetStreamApiError,
  type JetStreamManager,
  ReplayPolicy,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
  type StreamInfo,
} from '@nats-io/jetstream';
import { nanos } from '@nats-io/transport-node';
import type { Nats } from './nats.js';
import { eventConsumer, eventStream, eventSubjects } from './subjects.js';

/** JetStream cannot be used as it is: the message says what is wrong, and what to do. */
export class JetStreamUnusableError extends Error {
  override readonly name = 'JetStreamUnusableError';
}

/** The oldest server that has all that is asked of it; Debian's is that old. */
const OLDEST_SERVER = '2.9.0';

export interface StreamLimits {
  /** How much may wait for one subscriber, in bytes; then its events wait in their outboxes. */
  maxBytes: number;
  /** Copies of each message, in a cluster. */
  replicas: number;
  /** How long the broker recognises an event that is published again, ms. The inbox does for good. */
  duplicateWindowMs: number;
  /** After this without a sign, a delivered event is taken for lost with its process, ms. */
  ackWaitMs: number;
  /** Delivered and not acknowledged yet, in all of a subscriber's processes together. */
  inFlight: number;
}

export const streamLimits: StreamLimits = {
  maxBytes: 256 * 1024 * 1024,
  replicas: 1,
  duplicateWindowMs: 120_000,
  ackWaitMs: 15_000,
  inFlight: 1_000,
};

/** The stream of a subscriber: a queue on disk that refuses when it is full, and forgets what has been taken. */
function streamConfig(subscriber: string, limits: StreamLimits): Partial<StreamConfig> & { name: string } {
  return {
    name: eventStream(subscriber),
    subjects: [eventSubjects(subscriber)],
    storage: StorageType.File,
    // What is acknowledged goes, and nothing else ever does.
    retention: RetentionPolicy.Workqueue,
    discard: DiscardPolicy.New,
    max_age: 0,
    max_msgs: -1,
    deny_delete: true,
    deny_purge: true,
    duplicate_window: nanos(limits.duplicateWindowMs),
    max_bytes: limits.maxBytes,
    num_replicas: limits.replicas,
  };
}

/** One for all processes of the subscriber. It gives up on no message: that is decided where the tries are counted. */
function consumerConfig(subscriber: string, limits: StreamLimits): Partial<ConsumerConfig> {
  return {
    durable_name: eventConsumer(subscriber),
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    replay_policy: ReplayPolicy.Instant,
    ack_wait: nanos(limits.ackWaitMs),
    max_deliver: -1,
    max_ack_pending: limits.inFlight,
  };
}

/* For whoever runs the broker to choose: how much it keeps, and how often. */
const theirs = new Set(['max_bytes', 'num_replicas']);

/** What is set otherwise than it should be: `retention is limits, not workqueue`. */
export function drift(wanted: object, there: object): string[] {
  const found = there as Record<string, unknown>;
  return Object.entries(wanted)
    .filter(([name, value]) => !theirs.has(name) && !same(value, found[name]))
    .map(([name, value]) => `${name} is ${said(found[name])}, not ${said(value)}`);
}

/* The server leaves out what is 0, false or empty. */
const same = (wanted: unknown, found: unknown): boolean =>
  JSON.stringify(wanted) === JSON.stringify(found) || (found === undefined && (wanted === 0 || wanted === false));

const said = (value: unknown): string => (typeof value === 'string' ? value : (JSON.stringify(value) ?? 'unset'));

/**
 * Makes the stream of a subscriber and its consumer where they are missing. What is there with other settings is left as
 * it is: a JetStreamUnusableError says how it differs.
 */
export async function declare(jsm: JetStreamManager, subscriber: string, limits: StreamLimits): Promise<StreamInfo> {
  const wanted = streamConfig(subscriber, limits);
  const stream = (await streamInfo(jsm, subscriber)) ?? (await addStream(jsm, wanted, subscriber));
  refuseDrift(`The stream ${wanted.name}`, drift(wanted, stream.config), `nats stream edit ${wanted.name}`);

  const consumer = consumerConfig(subscriber, limits);
  const there = (await consumerInfo(jsm, subscriber)) ?? (await jsm.consumers.add(wanted.name, consumer));
  refuseDrift(
    `The consumer ${eventConsumer(subscriber)} of ${wanted.name}`,
    drift(consumer, there.config),
    `nats consumer rm ${wanted.name} ${eventConsumer(subscriber)}`,
  );
  return stream;
}

const told = (error: unknown, code: JetStreamApiCodes): boolean =>
  error instanceof JetStreamApiError && error.code === code;

/* The library has a class for it, and does not export it. */
export const hasNoJetStream = (error: unknown): boolean => (error as Error)?.name === 'JetStreamNotEnabled';

/** What is known of a subscriber's stream; undefined when there is none. */
export async function streamInfo(jsm: JetStreamManager, subscriber: string): Promise<StreamInfo | undefined> {
  try {
    return await jsm.streams.info(eventStream(subscriber));
  } catch (error) {
    if (told(error, JetStreamApiCodes.StreamNotFound)) return undefined;
    throw error;
  }
}

export async function consumerInfo(jsm: JetStreamManager, subscriber: string): Promise<ConsumerInfo | undefined> {
  try {
    return await jsm.consumers.info(eventStream(subscriber), eventConsumer(subscriber));
  } catch (error) {
    if (told(error, JetStreamApiCodes.ConsumerNotFound)) return undefined;
    throw error;
  }
}

/** Another process of the same kind may make it at the same time. */
async function addStream(
  jsm: JetStreamManager,
  wanted: Partial<StreamConfig> & { name: string },
  subscriber: string,
): Promise<StreamInfo> {
  try {
    return await jsm.streams.add(wanted);
  } catch (error) {
    const meanwhile = await streamInfo(jsm, subscriber);
    if (meanwhile) return meanwhile;
    throw error;
  }
}

function refuseDrift(what: string, differences: string[], command: string): void {
  if (differences.length)
    throw new JetStreamUnusableError(
      `${what} has other settings than it should: ${differences.join('; ')}. ` +
        `Nothing was changed: see \`${command}\`, or remove it when it is empty`,
    );
}

/** Is this a server that can do what is needed? Says so before anything else fails in a way that nobody understands. */
export function refuseServer({ where, serverVersion, connection }: Nats): void {
  if (isOlder(serverVersion, OLDEST_SERVER))
    throw new JetStreamUnusableError(
      `NATS at ${where} is ${serverVersion}, and events need ${OLDEST_SERVER} or a later one (or BANYAN_EVENTS=direct and no NATS_URL)`,
    );
  if (connection.info?.jetstream === false) throw notEnabled(where);
}

export const notEnabled = (where: string, cause?: unknown): JetStreamUnusableError =>
  new JetStreamUnusableError(
    `NATS at ${where} has no JetStream for this user: start it with \`jetstream {}\` in its configuration, or with -js`,
    { cause },
  );

/** Will it be the same at the next try? Then waiting for it helps nobody. */
export function hopeless(error: unknown, where: string): Error | undefined {
  if (error instanceof JetStreamUnusableError) return error;
  // Told by the server; when it merely does not answer yet, the cause is that nobody listens.
  if (hasNoJetStream(error) && (error as Error).cause instanceof JetStreamApiError) return notEnabled(where, error);
  return undefined;
}

function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split(/[.-]/).map(Number));
  for (let i = 0; i < 3; i++) {
    if ((a![i] ?? 0) !== b![i]) return (a![i] ?? 0) < b![i]!;
  }
  return false;
}
