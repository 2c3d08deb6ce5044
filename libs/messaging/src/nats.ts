import { setTimeout as sleep } from 'node:timers/promises';
import { type Msg, type NatsConnection, type Status, connect, createInbox, errors } from '@nats-io/transport-node';
import { rootLogger } from '@banyan/platform/telemetry';
import { inboxPrefix, isInbox } from './subjects.js';

export {
  callSubject,
  deliverSubject,
  eventConsumer,
  eventStream,
  eventSubject,
  eventSubjects,
  giveBackSubject,
  inboxPrefix,
  logStream,
  logSubject,
  natsUser,
  queueGroup,
} from './subjects.js';

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

/** A request that was not sent: nobody has seen it. */
export class NatsAwayError extends Error {
  override readonly name = 'NatsAwayError';
}

/** The connection broke while the answer was awaited, or whoever had the request fell silent: it may have been seen. */
export class NatsLostError extends Error {
  override readonly name = 'NatsLostError';
}

/** No answer in time. */
export class NatsLateError extends Error {
  override readonly name = 'NatsLateError';
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
/**
 * A process that is at work on a request says so every BEAT with an empty message; one that has been silent for SILENCE
 * is gone, ms. A broken TCP connection tells that by itself, but the broker's does not break when somebody else dies: a
 * call would wait for its deadline.
 */
export const BEAT = 1_000;
const SILENCE = 5_000;
/** A timer that comes later than this tells about this process, not about others, ms. */
const STALL = 250;

/** A request that waits for its answer. */
interface Asked {
  subject: string;
  until: number;
  heardAt: number;
  timer: NodeJS.Timeout | undefined;
  resolve(answer: Msg): void;
  reject(error: Error): void;
}

/** A message that leaves at the end of this turn; with a token it is a request. */
interface Leaving {
  subject: string;
  payload: Uint8Array;
  token?: string;
}

/**
 * The connection of a process to NATS: one, whatever it is for. It comes back by itself whenever the broker does; in
 * between nothing is kept for it, because whoever sends must know what was sent.
 */
export class Nats {
  readonly #asked = new Map<string, Asked>();
  readonly #leaving: Leaving[] = [];
  readonly #inbox: string;
  readonly #listeners = new Set<(connected: boolean) => void>();
  #count = 0;
  #closing = false;
  #awaySince: number | undefined;
  #maxPayload: number;
  /** Since the connection is this one, an answer was refused: said once. */
  #answersRefused = false;

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
        const nats = new Nats(await connect(options), where, options.inboxPrefix);
        await nats.#listen(options.inboxPrefix);
        return nats;
      } catch (error) {
        if (error instanceof NatsUnavailableError) throw error;
        if (error instanceof errors.AuthorizationError)
          throw new NatsUnavailableError(
            `NATS at ${where} refuses ${options.user ? `the user ${options.user}` : 'a connection without a user'}: check NATS_USER and NATS_PASSWORD`,
            { cause: error },
          );
        if (Date.now() >= until)
          throw new NatsUnavailableError(
            `NATS cannot be reached at ${where} (${reason(error)}): check NATS_URL, and that it runs`,
            { cause: error },
          );
        await sleep(2 * AGAIN);
      }
    }
  }

  private constructor(
    /** For what this class does not do: subscriptions, JetStream. */
    readonly connection: NatsConnection,
    /** Its servers, without secrets. */
    readonly where: string,
    inboxPrefix: string,
  ) {
    this.#maxPayload = connection.info!.max_payload;
    this.#inbox = `${createInbox(inboxPrefix)}.`;
    void this.#follow();
  }

  get connected(): boolean {
    return this.#awaySince === undefined && !this.connection.isClosed();
  }

  /** Since when there is no connection, ms since the epoch. */
  get awaySince(): number | undefined {
    return this.#awaySince;
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
    return new Promise((resolve, reject) => {
      if (!this.connected) return reject(new NatsAwayError(`NATS at ${this.where} is away`));
      const token = (++this.#count).toString(36);
      const now = Date.now();
      const asked: Asked = { subject, until: now + timeoutMs, heardAt: now, timer: undefined, resolve, reject };
      this.#asked.set(token, asked);
      this.#watch(token, asked, now);
      this.#send({ subject, payload, token });
    });
  }

  /** Answers `message`; an empty payload is a sign of life. */
  answer({ reply }: Msg, payload: Uint8Array): void {
    if (reply) this.#send({ subject: reply, payload });
  }

  /* What a turn of the event loop brings about leaves together. The library writes once per microtask, which was a system
     call for every message: half of what a call costs. */
  #send(message: Leaving): void {
    if (this.#leaving.push(message) === 1) setImmediate(() => this.#sendAll());
  }

  #sendAll(): void {
    for (const { subject, payload, token } of this.#leaving.splice(0)) {
      // Given up meanwhile: whoever asked was told that nobody answers.
      if (token && !this.#asked.has(token)) continue;
      try {
        this.connection.publish(subject, payload, token ? { reply: this.#inbox + token } : undefined);
      } catch (error) {
        // Not sent: the connection is closed, or the server takes less than it did. Whoever awaits an answer hears nothing.
        if (token) this.#give(token)?.reject(new NatsAwayError(reason(error), { cause: error }));
      }
    }
  }

  #watch(token: string, asked: Asked, now: number): void {
    const next = Math.min(asked.until, asked.heardAt + SILENCE);
    asked.timer = setTimeout(() => this.#look(token, asked, next), Math.max(1, next - now));
  }

  #look(token: string, asked: Asked, planned: number): void {
    const now = Date.now();
    // This process itself stood still: what has arrived meanwhile is read after its timers.
    if (now > planned + STALL) asked.heardAt = now - SILENCE + STALL;
    if (now >= asked.until) this.#give(token)?.reject(new NatsLateError(`No answer to ${asked.subject} in time`));
    else if (now >= asked.heardAt + SILENCE)
      this.#give(token)?.reject(new NatsLostError(`Whoever got ${asked.subject} has fallen silent`));
    else this.#watch(token, asked, now);
  }

  #give(token: string): Asked | undefined {
    const asked = this.#asked.get(token);
    this.#asked.delete(token);
    clearTimeout(asked?.timer);
    return asked;
  }

  /** Answers arrive here, all of them on one subscription. */
  async #listen(prefix: string): Promise<void> {
    let refused = false;
    const { connection } = this;
    connection.subscribe(`${this.#inbox}*`, {
      callback: (error, message) => {
        if (error) refused = true;
        else this.#heard(message.subject.slice(this.#inbox.length), message);
      },
    });
    await this.settled();
    if (!refused) return;
    await this.close();
    throw new NatsUnavailableError(
      `NATS at ${this.where} does not let this process listen to ${prefix}.>: check NATS_USER and its permissions`,
    );
  }

  #heard(token: string, message: Msg): void {
    if (message.data.length > 0) return this.#give(token)?.resolve(message);
    // The broker's own answer when nobody listens (503), or a sign of life.
    if (message.headers?.code === 503) {
      const asked = this.#give(token);
      return asked?.reject(new NatsAwayError(`nobody listens to ${asked.subject}`));
    }
    const asked = this.#asked.get(token);
    if (asked) asked.heardAt = Date.now();
  }

  /**
   * Resolves when the server has seen all subscriptions: it answers in order, so what it refuses is known. Rejects with a
   * NatsUnavailableError when the connection breaks meanwhile.
   */
  async settled(): Promise<void> {
    try {
      await this.connection.flush();
    } catch (error) {
      throw new NatsUnavailableError(
        `The connection to NATS at ${this.where} broke while this process started (${reason(error)}): start it again when NATS is up`,
        { cause: error },
      );
    }
  }

  /** Resolves when the server has everything that was sent, and at last after a second: it may hang. */
  async sent(): Promise<void> {
    this.#sendAll();
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
      case 'disconnect':
        this.#awaySince ??= Date.now();
        log.warn({ server: status.server }, 'the connection to NATS is lost');
        this.#breakOff();
        return this.#tell(false);
      case 'reconnect':
        this.#awaySince = undefined;
        this.#answersRefused = false;
        this.#maxPayload = this.connection.info?.max_payload ?? this.#maxPayload;
        log.info({ server: status.server }, 'the connection to NATS is back');
        return this.#tell(true);
      case 'error':
        return this.#refused(status.error);
      case 'slowConsumer':
        log.warn({ subject: status.sub.getSubject(), pending: status.pending }, 'messages of NATS pile up');
    }
  }

  #breakOff(): void {
    for (const token of [...this.#asked.keys()])
      this.#give(token)?.reject(new NatsLostError(`The connection to NATS at ${this.where} broke`));
  }

  /** The broker says which subject it has refused a message to, not which message: it is the same for all of them. */
  #refused(error: Error): void {
    const log = rootLogger();
    const subject = error instanceof errors.PermissionViolationError && error.operation === 'publish' && error.subject;
    if (subject && isInbox(subject)) {
      // The right to answer goes with the connection that brought the request. Whoever asked knows that theirs broke.
      if (!this.#answersRefused)
        log.warn({ subject }, 'NATS takes no answers to what was asked before the connection broke');
      this.#answersRefused = true;
      return;
    }
    log.error({ reason: error.message }, 'NATS refuses something');
    for (const [token, asked] of [...this.#asked])
      if (asked.subject === subject)
        this.#give(token)?.reject(new NatsAwayError(`NATS does not let this process send to ${subject}`));
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

function reason(error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException;
  return message || code || String(error);
}
