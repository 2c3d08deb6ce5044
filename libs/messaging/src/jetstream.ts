import {
  type Consumer,
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
} from '@nats-io/jetstream';
import { reasonOf } from '@banyan/kernel';
import { metrics, readiness } from '@banyan/platform/telemetry';
import type { EventEnvelope } from './envelope.js';
import {
  JetStreamUnusableError,
  type StreamLimits,
  consumerInfo,
  declare,
  hasNoJetStream,
  hopeless,
  notEnabled,
  refuseServer,
  streamInfo,
  streamLimits,
} from './jetstream-declare.js';
import { EventConsumer, type Taker, type TakingOptions } from './jetstream-consumer.js';
import type { Nats } from './nats.js';
import { eventConsumer, eventStream, eventSubject } from './subjects.js';

export { JetStreamUnusableError, type StreamLimits, streamLimits } from './jetstream-declare.js';

/** What a stream says of one event that was handed to it. */
export type Publication =
  /** It is kept, by the stream of that incarnation, at that place. */
  | { id: string; verdict: 'published'; via: string; seq: number }
  /** Not now: the stream is full, or not there, or (`silent`) did not answer. It may be kept all the same. */
  | { id: string; verdict: 'refused'; error: string; silent: boolean }
  /** Never: it is longer than the broker takes. */
  | { id: string; verdict: 'unfit'; error: string };

export interface StreamState {
  /** When it was made: one that was made anew is another stream. */
  incarnation: string;
  /** The subscriber has everything up to here. */
  taken: number;
  /** How many it has not. */
  waiting: number;
  /** How many of those were delivered and are not acknowledged yet. */
  onTheirWay: number;
}

export interface EventStreamsOptions {
  /** Events go through streams from now on; else what is in them is taken out, and nothing is put in. */
  publishing: boolean;
  limits?: Partial<StreamLimits>;
}

/** How long JetStream may take to answer, and to keep an event, ms. */
const ANSWER = 2_000;
const KEEP = 5_000;
/** How long it may take at its start, when it reads what it has, ms. */
const PATIENCE = 10_000;
/** What headers and subject take of a message, at most. */
const AROUND = 1_024;

const encoder = new TextEncoder();

/**
 * Streams between outboxes and inboxes: one for each subscriber, so that a full one, or a slow consumer, holds up
 * nobody else's events.
 */
export class EventStreams {
  readonly publishing: boolean;
  readonly #limits: StreamLimits;
  readonly #client: JetStreamClient;
  #manager: JetStreamManager | undefined;
  /** Of the streams that are published into, by subscriber: which incarnation, and the last place that was told. */
  readonly #known = new Map<string, { incarnation: string; seq: number }>();

  constructor(
    private readonly nats: Nats,
    { publishing, limits }: EventStreamsOptions,
  ) {
    this.publishing = publishing;
    this.#limits = { ...streamLimits, ...limits };
    this.#client = jetstream(nats.connection, { timeout: ANSWER });
    // Whoever answers next may be another server, with other disks.
    nats.onChange(() => this.#known.clear());
  }

  get connected(): boolean {
    return this.nats.connected;
  }

  onChange(listener: (connected: boolean) => void): () => void {
    return this.nats.onChange(listener);
  }

  /**
   * Makes the streams of these subscribers and their consumers, where they are missing. Rejects with a
   * JetStreamUnusableError when they are there with other settings, or the server cannot do it.
   */
  async declare(subscribers: readonly string[]): Promise<void> {
    refuseServer(this.nats);
    const until = Date.now() + PATIENCE;
    for (const subscriber of subscribers) {
      for (;;) {
        try {
          await declare(await this.#jsm(), subscriber, this.#limits);
          break;
        } catch (error) {
          const lost = hopeless(error, this.nats.where);
          if (lost) throw lost;
          if (Date.now() >= until) {
            if (hasNoJetStream(error)) throw notEnabled(this.nats.where, error);
            throw new JetStreamUnusableError(
              `The stream ${eventStream(subscriber)} cannot be made on NATS at ${this.nats.where}: ${reason(error)}`,
              { cause: error },
            );
          }
          await new Promise((resolve) => setTimeout(resolve, 250));
        }
      }
    }
  }

  /**
   * Hands events to a subscriber's stream, in their order, and waits until it keeps them. One answer for each, in the
   * same order. Rejects when nothing can be said of any: there is no broker, or no stream.
   */
  async publish(subscriber: string, events: EventEnvelope[]): Promise<Publication[]> {
    if (!this.connected) throw new Error(`NATS at ${this.nats.where} is away`);
    // Before the first is sent: a stream that is made anew meanwhile is told by what is asked of it later.
    const stream = this.#known.get(subscriber) ?? (await this.#look(subscriber));
    if (!stream) throw new Error(`There is no stream ${eventStream(subscriber)}`);
    const { incarnation } = stream;
    let lost: (() => void) | undefined;
    const broken = new Promise<never>((_, reject) => {
      lost = () => reject(new Error(`The connection to NATS at ${this.nats.where} broke`));
    });
    broken.catch(() => {});
    const forget = this.nats.onChange(() => lost!());
    try {
      return await Promise.all(
        events.map(async (event): Promise<Publication> => {
          const { id } = event;
          const payload = encoder.encode(JSON.stringify(event));
          if (payload.length + AROUND > this.nats.maxPayload)
            return { id, verdict: 'unfit', error: `${payload.length} bytes are more than the broker takes` };
          try {
            const ack = await Promise.race([
              this.#client.publish(eventSubject(subscriber, event.type), payload, {
                msgID: id,
                timeout: KEEP,
                expect: { streamName: eventStream(subscriber) },
              }),
              broken,
            ]);
            if (!ack.duplicate && ack.seq < stream.seq) throw new Error('The stream was made anew');
            stream.seq = Math.max(stream.seq, ack.seq);
            return { id, verdict: 'published', via: incarnation, seq: ack.seq };
          } catch (error) {
            this.#known.delete(subscriber);
            return { id, verdict: 'refused', error: reason(error), silent: !(error instanceof JetStreamApiError) };
          }
        }),
      );
    } finally {
      forget();
    }
  }

  /** What a subscriber's stream is like; undefined when there is none. Rejects when JetStream does not answer. */
  async state(subscriber: string): Promise<StreamState | undefined> {
    const jsm = await this.#jsm();
    const info = await streamInfo(jsm, subscriber);
    if (!info) {
      this.#known.delete(subscriber);
      return undefined;
    }
    const known = this.#known.get(subscriber);
    if (known?.incarnation !== info.created) this.#known.set(subscriber, { incarnation: info.created, seq: 0 });
    // Asked after the stream: what is acknowledged was in it. The stream itself does not tell: after a crash a server of
    // 2.9 keeps some messages whose acknowledgement it remembers (32 of 4,000), for good.
    const consumer = await consumerInfo(jsm, subscriber);
    const { messages, first_seq } = info.state;
    return {
      incarnation: info.created,
      taken: Math.max(first_seq - 1, consumer?.ack_floor.stream_seq ?? 0, 0),
      onTheirWay: consumer?.num_ack_pending ?? 0,
      waiting: consumer ? consumer.num_pending + consumer.num_ack_pending : messages,
    };
  }

  /** Takes a subscriber's events from its stream, whenever its taker is active. Ends with `stop`. */
  subscribe(subscriber: string, taker: Taker, options?: Partial<TakingOptions>): EventConsumer {
    const consumer = new EventConsumer(
      {
        nats: this.nats,
        keepAliveMs: this.#limits.ackWaitMs / 3,
        open: () => this.#open(subscriber),
      },
      subscriber,
      taker,
      options,
    );
    const hidden = [
      readiness.degraded(`events for ${subscriber}`, () => consumer.fault),
      metrics.gauge(
        'banyan_stream_pending',
        'Events in the stream of a subscriber that it has not taken yet',
        async () => {
          if (!taker.active()) return [];
          const state = await this.state(subscriber);
          return state ? [{ labels: { context: subscriber }, value: state.waiting }] : [];
        },
        subscriber,
      ),
    ];
    consumer.start(() => hidden.forEach((hide) => hide()));
    return consumer;
  }

  /** Undefined when there is nothing to take, because nobody has ever put anything in and nobody does. */
  async #open(subscriber: string): Promise<Consumer | undefined> {
    const jsm = await this.#jsm();
    if (!this.publishing)
      try {
        if (!(await streamInfo(jsm, subscriber))) return undefined;
      } catch (error) {
        if (hasNoJetStream(error)) return undefined;
        throw error;
      }
    await declare(jsm, subscriber, this.#limits);
    return this.#client.consumers.get(eventStream(subscriber), eventConsumer(subscriber));
  }

  async #look(subscriber: string) {
    await this.state(subscriber);
    return this.#known.get(subscriber);
  }

  /** Asks the server nothing: a user may have no right to ask for the whole account. */
  async #jsm(): Promise<JetStreamManager> {
    return (this.#manager ??= await this.#client.jetstreamManager(false));
  }
}

const reason = (error: unknown): string =>
  error instanceof JetStreamApiError ? `${error.message} (${error.code})` : reasonOf(error);
