import { type Socket, connect } from 'node:net';
import type { Dispatcher } from 'undici';
import { AnswerReader, type AnswerSink } from './answer-reader.js';
import type { AnswerHeaders } from './attempt.js';

/** What a wire sends: all of it at hand, names and values already checked by whoever read them. */
export interface WireRequest {
  method: string;
  path: string;
  /** Flat list; without framing. */
  headers: readonly string[];
  body: Buffer | null;
}

/** Up to this, one string is cheaper to send than a string and a Buffer. */
const SMALL_BYTES = 16 * 1024;
const EXPECT_BODY = new Set(['POST', 'PUT', 'PATCH']);

const broken = (message: string, code = 'ECONNRESET'): Error => Object.assign(new Error(message), { code });

/**
 * One connection to an upstream, one request at a time. undici does the same for any dispatcher, body and protocol, for 20 us of
 * CPU a request more, which is a third of what a proxied request costs; bodies that stream still go through it.
 */
export class Wire implements Dispatcher.DispatchController, AnswerSink {
  /** When it fell idle, ms of performance.now(). */
  idleSince = 0;
  #socket: Socket;
  #handler: Dispatcher.DispatchHandler | undefined;
  #reader = new AnswerReader(this);
  #reason: Error | null = null;
  #paused = false;
  #timer: NodeJS.Timeout | undefined;
  dead = false;

  constructor(
    host: string,
    port: number,
    connectMs: number,
    private readonly freed: (wire: Wire) => void,
    private readonly closed: (wire: Wire) => void,
  ) {
    const socket = connect({ host, port, noDelay: true, keepAlive: true });
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#fail(broken('no connection in time', 'UND_ERR_CONNECT_TIMEOUT')), connectMs);
    socket.once('connect', () => clearTimeout(this.#timer));
    socket.on('data', (chunk: Buffer) => {
      // Whoever answers when nobody has asked is out of step: what comes next would go to the wrong client.
      if (!this.#handler) return this.#fail(broken('an answer that nobody asked for'));
      try {
        this.#reader.read(chunk);
      } catch (error) {
        // A header that Node does not send on, for one.
        this.#fail(error as Error);
      }
    });
    socket.on('error', (error) => this.#fail(error));
    socket.on('end', () => {
      this.dead = true;
      if (this.#handler && this.#reader.endsWithConnection) this.#reader.end();
      this.#fail(broken('the other side closed the connection'));
    });
    socket.on('close', () => this.#fail(broken('the connection is closed')));
  }

  send({ method, path, headers, body }: WireRequest, handler: Dispatcher.DispatchHandler): void {
    this.#handler = handler;
    this.#reason = null;
    this.#reader.begin(method === 'HEAD');
    let head = `${method} ${path} HTTP/1.1\r\n`;
    for (let at = 0; at < headers.length; at += 2) head += `${headers[at]}: ${headers[at + 1]}\r\n`;
    if (body !== null) head += `content-length: ${body.length}\r\n\r\n`;
    else head += EXPECT_BODY.has(method) ? 'content-length: 0\r\n\r\n' : '\r\n';
    handler.onRequestStart?.(this, undefined);
    if (this.dead) return;
    if (body === null) this.#socket.write(head, 'latin1');
    else if (body.length <= SMALL_BYTES) this.#socket.write(head + body.toString('latin1'), 'latin1');
    else {
      this.#socket.cork();
      this.#socket.write(head, 'latin1');
      this.#socket.write(body);
      this.#socket.uncork();
    }
  }

  get aborted(): boolean {
    return this.#reason !== null;
  }

  get reason(): Error | null {
    return this.#reason;
  }

  get paused(): boolean {
    return this.#paused;
  }

  abort(reason: Error): void {
    this.#reason = reason;
    this.#fail(reason);
  }

  pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#socket.resume();
  }

  /* What the reader finds. */

  head(status: number, headers: AnswerHeaders): void {
    this.#handler!.onResponseStart?.(this, status, headers as never);
  }

  piece(chunk: Buffer): void {
    this.#handler?.onResponseData?.(this, chunk);
  }

  whole(reusable: boolean): void {
    const handler = this.#handler;
    if (!handler) return;
    this.#handler = undefined;
    if (this.#paused) this.resume();
    if (!reusable || this.dead) this.destroy();
    handler.onResponseEnd?.(this, {});
    if (!this.dead) this.freed(this);
  }

  malformed(message: string): void {
    this.#fail(broken(message));
  }

  destroy(): void {
    this.dead = true;
    this.#reader.stop();
    clearTimeout(this.#timer);
    this.#socket.destroy();
  }

  #fail(error: Error): void {
    const handler = this.#handler;
    this.#handler = undefined;
    this.destroy();
    this.closed(this);
    handler?.onResponseError?.(this, error);
  }
}

interface Waiting {
  request: WireRequest;
  handler: Dispatcher.DispatchHandler;
}

/** The wires to one address: the one used last is used next, and those that nobody needs grow old and are closed. */
export class Wires {
  readonly #idle: Wire[] = [];
  readonly #open = new Set<Wire>();
  readonly #waiting: Waiting[] = [];
  readonly #host: string;
  readonly #port: number;
  readonly #timer: NodeJS.Timeout;
  #closing = false;

  constructor(
    origin: string,
    private readonly options: { connections: number; connectMs: number; idleMs: number },
  ) {
    const { hostname, port } = new URL(origin);
    this.#host = hostname.replace(/^\[|\]$/g, '');
    this.#port = Number(port || 80);
    this.#timer = setInterval(() => this.#closeOld(), 500).unref();
  }

  send(request: WireRequest, handler: Dispatcher.DispatchHandler): void {
    for (let wire; (wire = this.#idle.pop());) if (!wire.dead) return wire.send(request, handler);
    if (this.#open.size >= this.options.connections) return void this.#waiting.push({ request, handler });
    const wire = new Wire(this.#host, this.#port, this.options.connectMs, this.#freed, this.#closed);
    this.#open.add(wire);
    wire.send(request, handler);
  }

  /** What runs is finished; nothing new comes. */
  close(): void {
    this.#closing = true;
    for (const wire of this.#idle.splice(0)) wire.destroy();
    if (this.#open.size === 0) clearInterval(this.#timer);
  }

  destroy(): void {
    this.#closing = true;
    clearInterval(this.#timer);
    for (const wire of this.#open) wire.abort(broken('the proxy is closed'));
  }

  readonly #freed = (wire: Wire): void => {
    if (this.#closing) return wire.destroy();
    const next = this.#waiting.shift();
    if (next) return wire.send(next.request, next.handler);
    wire.idleSince = performance.now();
    this.#idle.push(wire);
  };

  readonly #closed = (wire: Wire): void => {
    if (!this.#open.delete(wire)) return;
    const next = this.#waiting.shift();
    if (next) this.send(next.request, next.handler);
  };

  #closeOld(): void {
    const old = performance.now() - this.options.idleMs;
    // The oldest are at the bottom.
    let count = 0;
    while (count < this.#idle.length && this.#idle[count]!.idleSince < old) count++;
    for (const wire of this.#idle.splice(0, count)) wire.destroy();
    if (this.#closing && this.#open.size === 0) clearInterval(this.#timer);
  }
}
