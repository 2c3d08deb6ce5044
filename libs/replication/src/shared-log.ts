import type { MsgHdrs, NatsConnection } from '@nats-io/nats-core';
import {
  type JetStreamManager,
  JetStreamApiCodes,
  JetStreamApiError,
  type StreamConfig,
  type StreamInfo,
  jetstreamManager,
} from '@nats-io/jetstream';
import { ReplicationError } from './errors.js';
import type { History } from './history.js';
import { lsnOf, lsnText } from './stream.js';

/** The connection to NATS of the process, which comes back by itself. */
export interface Broker {
  readonly connection: NatsConnection;
  readonly connected: boolean;
  /** The longest message that the server takes, in bytes. */
  readonly maxPayload: number;
  /** Calls `listener` when the connection is lost, and when it is back; returns what ends that. */
  onChange(listener: (connected: boolean) => void): () => void;
}

/**
 * A source's log in a stream of NATS: one process reads the slot and publishes, any number of targets follow at their own
 * pace, and one that is away does not make the source keep its log.
 */
export interface SharedLog {
  broker: Broker;
  /** The stream, which nobody else writes to, and the one subject that it takes. */
  stream: string;
  subject: string;
  /** What the stream keeps; the oldest goes first, and a target that had not read it is copied anew. */
  maxBytes: number;
  /** Does this process read the slot? Otherwise it only follows. */
  publish: boolean;
}

/** For the oldest of what nobody may want any more; who publishes writes every ten seconds, so an end is always there. */
const MAX_AGE_DAYS = 3;
const API_MS = 3_000;
export const PLACE_HEADER = 'Banyan-Log';

/**
 * What a message says of itself. Its content is a bundle of pgoutput messages, each behind its length: whole
 * transactions, with the descriptions of their tables in front of what needs them. One that is too long goes in parts.
 */
export interface Place extends History {
  /** Where the bundle before this one ends: without a break, nothing is missing. */
  from: bigint;
  /** Everything before it is in this bundle or an earlier one; undefined in all parts but the last. */
  to: bigint | undefined;
  part: number;
  /** The source's clock at `to`. */
  at: number;
}

export const placeText = ({ from, to, part, at, source, timeline }: Place): string =>
  `${lsnText(from)} ${to === undefined ? '-' : lsnText(to)} ${part} ${Math.round(at)} ${source} ${timeline}`;

export function placeOf(headers: MsgHdrs | undefined): Place {
  // The first ones to be published did not name their source: they are nobody's.
  const [from, to, part, at, source = '', timeline = '0'] = headers?.get(PLACE_HEADER).split(' ') ?? [];
  if (!from || !to || !part || !at) throw new Error('There is a message in the log that no bridge has written');
  return {
    from: lsnOf(from),
    to: to === '-' ? undefined : lsnOf(to),
    part: Number(part),
    at: Number(at),
    source,
    timeline: Number(timeline),
  };
}

/** Reads and declares the stream; the messages are published and followed elsewhere. */
export class LogStream {
  private constructor(
    private readonly log: SharedLog,
    readonly manager: JetStreamManager,
  ) {}

  static async open(log: SharedLog): Promise<LogStream> {
    refuseAway(log);
    return new LogStream(log, await jetstreamManager(log.broker.connection, { checkAPI: false, timeout: API_MS }));
  }

  /**
   * Makes the stream if it is not there; one that has other settings is not ours to change. Throws LOG_STREAM when the
   * log would not be right in it, and only warns when it keeps more or less than it should.
   */
  async declare(onWarning?: (message: string) => void): Promise<void> {
    const wanted = { ...this.#essential(), ...this.#limits() };
    const { config } = (await this.info()) ?? (await this.#make(wanted));
    const wrong = differences(config, this.#essential());
    if (wrong)
      throw new ReplicationError(
        'LOG_STREAM',
        `The stream ${this.log.stream} in NATS has other settings: ${wrong}.`,
        'Change it (`nats stream edit`), or delete it: then every target that has not read all of it is copied anew.',
      );
    const limits = differences(config, this.#limits());
    if (limits)
      onWarning?.(
        `The stream ${this.log.stream} in NATS has other limits than this bridge: ${limits}. It goes on with its own until \`nats stream edit\` changes them.`,
      );
  }

  async #make(wanted: Partial<StreamConfig> & { name: string }): Promise<StreamInfo> {
    try {
      // A copy: the library writes into it.
      return await this.manager.streams.add({ ...wanted });
    } catch (error) {
      if (!(error instanceof JetStreamApiError)) throw error;
      throw new ReplicationError(
        'LOG_STREAM',
        `NATS does not make the stream ${wanted.name} of ${wanted.max_bytes} bytes: ${error.message}.`,
        'Give it more storage, or let the log keep less.',
        { cause: error },
      );
    }
  }

  /** undefined: there is no such stream. */
  async info(): Promise<StreamInfo | undefined> {
    try {
      return await this.manager.streams.info(this.log.stream);
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamNotFound) return undefined;
      throw error;
    }
  }

  /** The place of a message; undefined when it is not there (any more). */
  async placeAt(seq: number): Promise<Place | undefined> {
    const message = await this.manager.streams.getMessage(this.log.stream, { seq });
    return message ? placeOf(message.header) : undefined;
  }

  /**
   * Where the log ends: everything before `lsn` is in it; undefined when nothing of that history is. Of a bundle that lacks
   * its last part nothing counts.
   */
  async end({ source, timeline }: History): Promise<{ lsn: bigint | undefined; seq: number }> {
    const { state } = (await this.info()) ?? { state: { messages: 0, last_seq: 0 } };
    const last = state.messages > 0 ? await this.placeAt(state.last_seq) : undefined;
    const isOurs = last?.source === source && last.timeline === timeline;
    return { lsn: isOurs ? (last.to ?? last.from) : undefined, seq: state.last_seq };
  }

  #essential() {
    return {
      name: this.log.stream,
      subjects: [this.log.subject],
      retention: 'limits',
      storage: 'file',
      // Never a full stream: the source must be able to let go of its log.
      discard: 'old',
      max_msgs: -1,
      max_msgs_per_subject: -1,
      // One message may take the place of all: the first one after a break.
      allow_rollup_hdrs: true,
      deny_purge: false,
      sealed: false,
    } satisfies Partial<StreamConfig>;
  }

  #limits() {
    return {
      max_bytes: this.log.maxBytes,
      max_age: MAX_AGE_DAYS * 86_400 * 1e9,
    } satisfies Partial<StreamConfig>;
  }
}

/** '' when all of what is wanted is so. */
function differences(config: StreamConfig, wanted: Partial<StreamConfig>): string {
  const named = Object.entries(wanted).flatMap(([name, value]) => {
    // Servers leave some of what is off out of their answers.
    const there = config[name as keyof StreamConfig] ?? false;
    const [is, wants] = [there, value].map((each) => JSON.stringify(each));
    return is === wants ? [] : [`${name} is ${is}, not ${wants}`];
  });
  return named.join(', ');
}

/** While there is no connection, nothing is asked: it would only be sent later. */
export function refuseAway({ broker }: SharedLog): void {
  if (!broker.connected) throw new Error('There is no connection to NATS');
}
