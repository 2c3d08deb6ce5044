import { reasonOf } from '@banyan/kernel';
import { type Msg, type NatsConnection, createInbox } from '@nats-io/transport-node';

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

/** What a process asks others on its connection, and what it answers. */
export class Requests {
  /** Where answers arrive, each with a token of its own at the end. */
  readonly inbox: string;
  readonly #asked = new Map<string, Asked>();
  readonly #leaving: Leaving[] = [];
  #count = 0;

  constructor(
    private readonly connection: NatsConnection,
    inboxPrefix: string,
  ) {
    this.inbox = `${createInbox(inboxPrefix)}.`;
  }

  /** As `Nats.request` says. */
  ask(subject: string, payload: Uint8Array, timeoutMs: number): Promise<Msg> {
    return new Promise((resolve, reject) => {
      const token = (++this.#count).toString(36);
      const now = Date.now();
      const asked: Asked = { subject, until: now + timeoutMs, heardAt: now, timer: undefined, resolve, reject };
      this.#asked.set(token, asked);
      this.#watch(token, asked, now);
      this.#send({ subject, payload, token });
    });
  }

  answer({ reply }: Msg, payload: Uint8Array): void {
    if (reply) this.#send({ subject: reply, payload });
  }

  /* What a turn of the event loop brings about leaves together. The library writes once per microtask, which was a system
     call for every message: half of what a call costs. */
  #send(message: Leaving): void {
    if (this.#leaving.push(message) === 1) setImmediate(() => this.sendAll());
  }

  /** At once. */
  sendAll(): void {
    for (const { subject, payload, token } of this.#leaving.splice(0)) {
      // Given up meanwhile: whoever asked was told that nobody answers.
      if (token && !this.#asked.has(token)) continue;
      try {
        this.connection.publish(subject, payload, token ? { reply: this.inbox + token } : undefined);
      } catch (error) {
        // Not sent: the connection is closed, or the server takes less than it did. Whoever awaits an answer hears nothing.
        if (token) this.#give(token)?.reject(new NatsAwayError(reasonOf(error), { cause: error }));
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

  /** A message to the inbox. */
  heard(message: Msg): void {
    const token = message.subject.slice(this.inbox.length);
    if (message.data.length > 0) return this.#give(token)?.resolve(message);
    // The broker's own answer when nobody listens (503), or a sign of life.
    if (message.headers?.code === 503) {
      const asked = this.#give(token);
      return asked?.reject(new NatsAwayError(`nobody listens to ${asked.subject}`));
    }
    const asked = this.#asked.get(token);
    if (asked) asked.heardAt = Date.now();
  }

  /** Everybody's answer, or of those who asked at `subject`: there is none. */
  giveUp(error: Error, subject?: string): void {
    for (const [token, asked] of [...this.#asked])
      if (subject === undefined || asked.subject === subject) this.#give(token)?.reject(error);
  }
}
