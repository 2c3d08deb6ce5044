import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';

/** Bodies up to this can be sent again after a fence has refused them. */
export const KEPT_BYTES = 64 * 1024;

/** Reads a small body. The answer comes once, or never: a client that leaves ends the exchange. */
export function readSmall(request: IncomingMessage, done: (body: Buffer) => void): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.once('end', () => done(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)));
}

/**
 * A body on its way through, at the pace of who reads it. Not the request itself, because an upstream that answers early
 * destroys what it is sent from, and with a request goes the connection that the answer has to take.
 */
export class Upload extends Readable {
  #kept: Buffer[] | undefined = [];
  #keptBytes = 0;
  #ended = false;

  constructor(private readonly request: IncomingMessage) {
    super();
    request.on('data', this.#onData).on('end', this.#onEnd).on('error', this.#onGone).on('close', this.#onGone);
    request.pause();
  }

  /** The whole body, if it has come to its end and was small. */
  get kept(): Buffer | undefined {
    return this.#ended && this.#kept ? Buffer.concat(this.#kept) : undefined;
  }

  override _read(): void {
    this.request.resume();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.request
      .off('data', this.#onData)
      .off('end', this.#onEnd)
      .off('error', this.#onGone)
      .off('close', this.#onGone);
    // What still comes is read and thrown away, so that the client gets to read its answer.
    this.request.on('error', () => {}).resume();
    done(error);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#keptBytes += chunk.length;
    if (this.#keptBytes > KEPT_BYTES) this.#kept = undefined;
    this.#kept?.push(chunk);
    if (!this.push(chunk)) this.request.pause();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    this.push(null);
  };

  readonly #onGone = (): void => {
    if (!this.#ended) this.destroy(new Error('the client went away'));
  };
}
