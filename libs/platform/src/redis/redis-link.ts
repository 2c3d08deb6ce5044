import { setTimeout as pause } from 'node:timers/promises';
import { Redis, type RedisOptions } from 'ioredis';
import { rootLogger } from '../telemetry/index.js';

/** A request that waits for Redis waits this long, ms. A process that is too busy to read for that long is not on time either. */
const ANSWER = 1_000;
/** Redis is asked whether it is there, ms. Silent twice in a row, it counts as away. */
const PULSE = 500;
const SILENT = 2;
/** How long a start waits for Redis, which may be away: then the process comes up without, ms. */
const PATIENCE = 1_000;
/** The longest pause between two tries to reach it again, ms: so much later than Redis itself all is well again. */
const RETRY = 500;

/** What it says when it knows who we are and does not want us. It will say so again: nothing gets better by waiting. */
const REFUSED = /^(WRONGPASS|NOAUTH|NOPERM|ERR (invalid password|AUTH|Client sent AUTH|DB index|invalid DB index))/;

const retryStrategy = (times: number): number => Math.min(RETRY, 20 * 2 ** times) * (0.5 + Math.random() / 2);

/**
 * One process's ways to Redis. `commands` is for what a request waits for: while Redis is away it fails at once, so that
 * whoever asks can do what is declared for that case. One line in the log tells when Redis goes, and one when it is back.
 */
export class RedisLink {
  /** Shared by everybody who asks something quick. Fails at once while Redis is away, and after a second when it is silent. */
  readonly commands: Redis;
  /** Host, port and number of the database: what may be shown. */
  readonly where: string;
  readonly #url: string;
  readonly #open: Redis[] = [];
  readonly #silent = new WeakMap<Redis, number>();
  readonly #log = rootLogger().child({ context: 'Redis' });
  readonly #listeners = new Set<() => void>();
  readonly #pulse: NodeJS.Timeout;
  #refused: Error | undefined;
  #downSince: number | undefined = performance.now();
  #told = false;
  #closed = false;

  /** `without`: what does not work in this process while Redis is away, for the log. */
  constructor(
    url: string,
    private readonly without = 'what needs it waits or is refused',
  ) {
    this.#url = url;
    const { host, pathname } = new URL(url);
    this.where = `${host}${pathname.length > 1 ? pathname : ''}`;
    this.commands = this.connect({ enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: ANSWER });
    this.commands.on('ready', () => this.#isUp());
    this.commands.on('close', () => this.#isDown());
    // A peer that hangs keeps its connections open: only asking shows it.
    this.#pulse = setInterval(() => this.#beat(), PULSE).unref();
  }

  /** Does Redis answer, as far as is known? */
  get up(): boolean {
    return this.commands.status === 'ready';
  }

  /** Calls `listener` whenever Redis has come (back): what it held may be gone. Returns what stops that. */
  onUp(listener: () => void): () => void {
    this.#listeners.add(listener);
    if (this.up) listener();
    return () => this.#listeners.delete(listener);
  }

  /**
   * Waits a little for Redis. One that is away is no reason not to start. Throws when Redis refuses the credentials or
   * the database of the URL.
   */
  async start(): Promise<void> {
    const until = performance.now() + PATIENCE;
    while (!this.up && !this.#refused && performance.now() < until) await pause(10);
    if (!this.#refused) return;
    const { message } = this.#refused;
    this.close();
    throw new Error(`Redis at ${this.where} refuses what REDIS_URL says: ${message}`);
  }

  /** One more connection, closed with the link. It reconnects for ever. */
  connect(options: RedisOptions): Redis {
    const client = new Redis(this.#url, {
      connectionName: 'banyan',
      connectTimeout: PATIENCE,
      disconnectTimeout: 100,
      retryStrategy,
      ...options,
    });
    client.on('error', (error) => this.#failed(error));
    this.#open.push(client);
    return client;
  }

  /** Ends all connections, without waiting for answers. */
  close(): void {
    this.#closed = true;
    clearInterval(this.#pulse);
    this.#listeners.clear();
    for (const client of this.#open) client.disconnect();
  }

  #isUp(): void {
    if (this.#told) {
      const seconds = Math.round((performance.now() - (this.#downSince ?? 0)) / 100) / 10;
      this.#log.info({ msg: 'Redis answers again', redis: this.where, seconds });
    }
    this.#told = false;
    this.#downSince = undefined;
    for (const listener of this.#listeners) listener();
  }

  #isDown(): void {
    this.#downSince ??= performance.now();
    this.#tell('the connection was closed');
  }

  #failed(error: Error): void {
    if (REFUSED.test(error.message)) this.#refused = error;
    if (!this.up) this.#tell(error.message);
  }

  #tell(reason: string): void {
    if (this.#told || this.#closed) return;
    this.#told = true;
    this.#log.warn({ msg: `Redis is away: ${this.without}`, redis: this.where, reason });
  }

  #beat(): void {
    for (const client of this.#open) {
      if (client.status !== 'ready' || client.options.commandTimeout === undefined) continue;
      const silent = (): void => {
        const times = (this.#silent.get(client) ?? 0) + 1;
        this.#silent.set(client, times);
        if (times >= SILENT && client.status === 'ready') client.disconnect(true);
      };
      client.ping().then(() => this.#silent.delete(client), silent);
    }
  }
}
