import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Msg,
  type NatsConnection,
  type Status,
  type Subscription,
  connect,
  errors,
} from '@nats-io/transport-node';
import { reasonOf } from '@banyan/kernel';
import { rootLogger } from '@banyan/platform/telemetry';
import { NatsAwayError, NatsLostError, Requests } from './nats-requests.js';
import { inboxPrefix, isInbox } from './subjects.js';

export { logStream, logSubject, natsUser } from './subjects.js';

/** As `Config.nats` has them. */
export interface NatsSettings {
  /** `nats://` or `tls://` URLs of one cluster; they may carry the user and the password. */
  servers: readonly string[];
  user?: string;
  password?: string;
  /** Files. */
  tls: { ca?: string; cert?: string; key?: string };
}

/** NATS cannot be used: the message says what to do. */
export class NatsUnavailableError extends Error {
  override readonly name = 'NatsUnavailableError';
}

/** How long a process waits at its start for a broker that is starting as well, ms. */
const PATIENCE = 5_000;
/** One try to connect, ms. */
const CONNECT = 3_000;
/** A connection is tried again after this plus as much again at random, ms: calls are held for 2 s only. */
const AGAIN = 100;
/** A broker that says nothing for two of these is taken for dead, ms. */
const PING = 5_000;
/** How long the last messages may take to leave, ms. */
const FLUSH = 1_000;
/** What the broker refuses to let a process listen to is asked for again after this, ms: rights are mended while it runs. */
const LISTEN_AGAIN = 5_000;

/** Somebody listens to a subject, for as long as the process wants to. */
export interface Listening {
  /** Takes no more, and resolves when what was on its way has been handed over; at last after a second. */
  leave(): Promise<void>;
}

/**
 * The connection of a process to NATS: one, whatever it is for. It comes back by itself whenever the broker does; in
 * between nothing is kept for it, because whoever sends must know what was sent.
 */
export class Nats {
  readonly #requests: Requests;
  readonly #listeners = new Set<(connected: boolean) => void>();
  /** What this process listens to, and what is to be done when the broker does not permit it any more. */
  readonly #listening = new Map<string, () => void>();
  /** Subjects among them that it may not listen to. */
  readonly #refused = new Set<string>();
  /** What has been said of this connection: each refusal once. */
  readonly #said = new Set<string>();
  #closing = false;
  #away = false;
  #maxPayload: number;

  /**
   * `name` is the kind of process (`natsUser`): what the broker's lists call the connection, and the user that goes with
   * a password unless the settings name one. Rejects with a NatsUnavailableError: at once when the user is refused, else after `patienceMs`.
   */
  static async connect(
    settings: NatsSettings,
    { name, patienceMs = PATIENCE }: { name: string; patienceMs?: number },
  ): Promise<Nats> {
    const { options, where } = optionsOf(settings, name);
    const until = Date.now() + patienceMs;
    for (;;) {
      try {
        return await new Nats(await connect(options), where, options.inboxPrefix).#begun();
      } catch (error) {
        // Unless the connection broke again: the broker may be starting.
        if (error instanceof NatsUnavailableError && !error.cause) throw error;
        if (error instanceof errors.AuthorizationError)
          throw new NatsUnavailableError(
            `NATS at ${where} refuses ${options.user ? `the user ${options.user}` : 'a connection without a user'}: check NATS_USER and NATS_PASSWORD`,
            { cause: error },
          );
        if (Date.now() >= until)
          throw new NatsUnavailableError(
            `NATS cannot be reached at ${where} (${reasonOf(error)}): check NATS_URL${options.tls ? ', NATS_TLS_CA, NATS_TLS_CERT and NATS_TLS_KEY' : ''}, and that it runs`,
            { cause: error },
          );
        await sleep(2 * AGAIN);
      }
    }
  }

  private constructor(
    /** For what this class does not do: JetStream. */
    readonly connection: NatsConnection,
    /** Its servers, without secrets. */
    readonly where: string,
    inboxPrefix: string,
  ) {
    this.#maxPayload = connection.info!.max_payload;
    this.#requests = new Requests(connection, inboxPrefix);
    void this.#follow();
  }

  get connected(): boolean {
    return !this.#away && !this.connection.isClosed();
  }

  /** What is wrong, for people; undefined: nothing. */
  get fault(): string | undefined {
    if (!this.connected) return `no connection to ${this.where}`;
    return this.#refused.size > 0 ? this.#mayNotListen() : undefined;
  }

  /** The longest message that the server takes, in bytes. */
  get maxPayload(): number {
    return this.#maxPayload;
  }

  /** The server's version, `2.9.10`: Debian's is an old one. */
  get serverVersion(): string {
    return this.connection.info?.version ?? 'unknown';
  }

  /** Calls `listener` whenever the connection is lost, and when it is back. Returns what ends that. */
  onChange(listener: (connected: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Asks whoever listens to `subject`; one of them answers. Rejects with a NatsAwayError when nobody has seen the request
   * (no connection, nobody listens, not permitted), with a NatsLostError when the connection breaks in the middle or
   * whoever has it falls silent, with a NatsLateError after `timeoutMs`. The payload must fit (`maxPayload`).
   */
  request(subject: string, payload: Uint8Array, timeoutMs: number): Promise<Msg> {
    if (!this.connected) return Promise.reject(new NatsAwayError(`NATS at ${this.where} is away`));
    return this.#requests.ask(subject, payload, timeoutMs);
  }

  /** Answers `message`; an empty payload is a sign of life. */
  answer(message: Msg, payload: Uint8Array): void {
    this.#requests.answer(message, payload);
  }

  /** Answers arrive on one subscription, all of them. */
  async #begun(): Promise<this> {
    this.listen(`${this.#requests.inbox}*`, (message) => this.#requests.heard(message));
    try {
      await this.settled();
      return this;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /**
   * Hands every message to `subject` over; as one of a `queue` group, those that this process gets. The broker may not
   * permit it, which `settled` tells at the start, and `fault` whenever it happens: it is asked for again now and then.
   */
  listen(subject: string, hand: (message: Msg) => void, queue?: string): Listening {
    let subscription: Subscription;
    let again: NodeJS.Timeout | undefined;
    const subscribe = () => {
      // The only error there is: the server does not permit it.
      const callback = (error: Error | null, message: Msg) => (error ? refused() : hand(message));
      subscription = this.connection.subscribe(subject, { queue, callback });
    };
    const refused = () => {
      if (again) return;
      this.#refused.add(subject);
      again = setTimeout(() => {
        again = undefined;
        void listenAgain();
      }, LISTEN_AGAIN).unref();
    };
    const listenAgain = async () => {
      if (this.connection.isClosed()) return;
      subscription.unsubscribe();
      subscribe();
      await this.connection.flush().catch(() => {});
      if (!again) this.#refused.delete(subject);
    };
    this.#listening.set(subject, refused);
    subscribe();
    return {
      leave: async () => {
        clearTimeout(again);
        this.#refused.delete(subject);
        this.#listening.delete(subject);
        if (subscription.isClosed()) return;
        if (this.connected) await soon(subscription.drain());
        else subscription.unsubscribe();
      },
    };
  }

  #mayNotListen(): string {
    return `NATS at ${this.where} does not let this process listen to ${[...this.#refused].join(', ')}: check NATS_USER and its permissions`;
  }

  /**
   * Resolves when the server has seen everything that this process listens to. Rejects with a NatsUnavailableError when it
   * does not permit some of it, or the connection breaks meanwhile.
   */
  async settled(): Promise<void> {
    try {
      await this.connection.flush();
    } catch (error) {
      throw new NatsUnavailableError(
        `The connection to NATS at ${this.where} broke while this process started (${reasonOf(error)}): start it again when NATS is up`,
        { cause: error },
      );
    }
    // The server answers in order.
    if (this.#refused.size > 0) throw new NatsUnavailableError(this.#mayNotListen());
  }

  /** Resolves when the server has everything that was sent, and at last after a second: it may hang. */
  async sent(): Promise<void> {
    this.#requests.sendAll();
    // Without a connection a flush waits for one.
    if (this.connected) await soon(this.connection.flush());
  }

  /** Sends what is on its way, and closes. Subscriptions should have ended before. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.connection.isClosed()) return;
    await this.sent();
    await this.connection.close();
  }

  async #follow(): Promise<void> {
    for await (const status of this.connection.status()) this.#told(status);
    this.#breakOff();
    if (!this.#closing) rootLogger().error({ server: this.where }, 'the connection to NATS has ended for good');
  }

  #told(status: Status): void {
    const log = rootLogger();
    switch (status.type) {
      // A try that fails after it had got somewhere is one more of these.
      case 'disconnect':
        if (this.#away) return;
        this.#away = true;
        log.warn({ server: status.server }, 'the connection to NATS is lost');
        this.#breakOff();
        return this.#tell(false);
      case 'reconnect':
        if (!this.#away) return;
        this.#away = false;
        this.#said.clear();
        this.#maxPayload = this.connection.info?.max_payload ?? this.#maxPayload;
        log.info({ server: status.server }, 'the connection to NATS is back');
        return this.#tell(true);
      case 'error':
        this.#complained(status.error);
    }
  }

  #breakOff(): void {
    this.#requests.giveUp(new NatsLostError(`The connection to NATS at ${this.where} broke`));
  }

  /** The broker says which subject it has refused a message to, not which message: it is the same for all of them. */
  #complained(error: Error): void {
    const refused = error instanceof errors.PermissionViolationError ? error : undefined;
    const isAnswer = refused?.operation === 'publish' && isInbox(refused.subject);
    // The right to answer goes with the connection that brought the request, and does not last for ever. Whoever asked
    // knows by now that there is none.
    const what = isAnswer ? 'an answer to a request of an earlier connection, or of long ago' : error.message;
    if (!this.#said.has(what)) rootLogger().error({ reason: what }, 'NATS refuses something');
    this.#said.add(what);
    // The library finds out by itself at first; not when rights were taken away since.
    if (refused?.operation === 'subscription') this.#listening.get(refused.subject)?.();
    if (refused?.operation !== 'publish' || isAnswer) return;
    const { subject } = refused;
    this.#requests.giveUp(new NatsAwayError(`NATS does not let this process send to ${subject}`), subject);
  }

  #tell(connected: boolean): void {
    for (const listener of this.#listeners) listener(connected);
  }
}

/** Whatever comes of it, and however long it takes: at last after a second. */
export const soon = (work: Promise<unknown>): Promise<unknown> =>
  Promise.race([work.catch(() => {}), sleep(FLUSH, undefined, { ref: false })]);

function optionsOf(settings: NatsSettings, name: string) {
  const urls = settings.servers.map((server) => new URL(server));
  const inUrl = urls.find(({ username }) => username);
  const pass = settings.password ?? (inUrl && decodeURIComponent(inUrl.password));
  const user = settings.user ?? (inUrl ? decodeURIComponent(inUrl.username) : pass && name);
  const { ca, cert, key } = settings.tls;
  const secured = ca ?? cert ?? key ?? urls.find(({ protocol }) => protocol === 'tls:');
  // The library reads neither users nor schemes in URLs.
  const servers = urls.map(({ host }) => host);
  return {
    where: servers.join(','),
    options: {
      servers,
      name,
      user,
      pass,
      tls: secured ? { caFile: ca, certFile: cert, keyFile: key } : undefined,
      inboxPrefix: inboxPrefix(user ?? name),
      timeout: CONNECT,
      // For good: also after a password was wrong for a while, as when secrets are changed one place at a time.
      maxReconnectAttempts: -1,
      ignoreAuthErrorAbort: true,
      reconnectDelayHandler: () => AGAIN + Math.random() * AGAIN,
      pingInterval: PING,
      // A stack per request costs a tenth of it.
      noAsyncTraces: true,
    },
  };
}
