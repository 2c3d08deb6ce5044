import type { FastifyReply } from 'fastify';

/** Proxies and readers take a stream that is silent for longer as a dead one. */
const HEARTBEAT_MS = 5_000;
/** A reader that does not keep up with this much is cut off: it comes back and gets the whole state. */
const BEHIND_BYTES = 4 * 1024 * 1024;

/**
 * Server-sent events on a raw reply: each is written at once, without a framework in between, because routers hold
 * commands until they have read it.
 */
export class EventStream {
  private static readonly all = new Set<EventStream>();
  private readonly heartbeat: NodeJS.Timeout;
  private readonly ends: (() => void)[] = [];

  constructor(private readonly reply: FastifyReply) {
    reply.hijack();
    const { raw } = reply;
    raw.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    });
    raw.socket?.setNoDelay(true);
    raw.write(': here\n\n');
    this.heartbeat = setInterval(() => this.write(': still here\n\n'), HEARTBEAT_MS);
    EventStream.all.add(this);
    raw.once('close', () => this.end());
    raw.on('error', () => this.end());
  }

  /** Whoever reads one finds another server. */
  static endAll(): void {
    for (const stream of this.all) stream.end();
  }

  send(event: string, data: unknown): void {
    this.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** Called once, when the stream is over, whoever ended it. */
  onEnd(fn: () => void): void {
    this.ends.push(fn);
  }

  end(): void {
    clearInterval(this.heartbeat);
    EventStream.all.delete(this);
    for (const fn of this.ends.splice(0)) fn();
    this.reply.raw.end();
  }

  private write(text: string): void {
    const { raw } = this.reply;
    if (raw.writableEnded || raw.destroyed) return;
    raw.write(text);
    if (raw.writableLength > BEHIND_BYTES) raw.destroy();
  }
}
