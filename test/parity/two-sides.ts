import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Side } from '@banyan/kernel';
import {
  type Answer,
  type AskOptions,
  Figures,
  Mirror,
  type MirrorOptions,
  type Outcome,
  type Rules,
  TooLarge,
} from '@banyan/extraction/parity';
import { request } from 'undici';

export type Handler = (req: IncomingMessage, res: ServerResponse) => void;

/** Two real HTTP servers, the owner and the candidate, and a mirror between them. */
export class TwoSides {
  readonly figures = new Figures();
  readonly mirror: Mirror;
  readonly asked = { monolith: 0, service: 0 };
  readonly #servers: Record<Side, Server>;
  #ports: Record<Side, number> = { monolith: 0, service: 0 };

  private constructor(owner: Handler, candidate: Handler, options: Partial<MirrorOptions>) {
    this.#servers = { monolith: this.#server('monolith', owner), service: this.#server('service', candidate) };
    this.mirror = new Mirror(this.figures, options);
    this.figures.begin('shop', 'now');
  }

  static async start(owner: Handler, candidate: Handler, options: Partial<MirrorOptions> = {}): Promise<TwoSides> {
    const sides = new TwoSides(owner, candidate, options);
    for (const side of ['monolith', 'service'] as const) {
      await new Promise<void>((resolve) => sides.#servers[side].listen(0, '127.0.0.1', resolve));
      sides.#ports[side] = (sides.#servers[side].address() as AddressInfo).port;
    }
    return sides;
  }

  #server(side: Side, handler: Handler): Server {
    return createServer((req, res) => {
      this.asked[side] += 1;
      handler(req, res);
    });
  }

  ask = async (side: Side, { signal, maxBytes }: AskOptions, path = '/v1/things/1'): Promise<Answer> => {
    const { statusCode, headers, body } = await request(`http://127.0.0.1:${this.#ports[side]}${path}`, { signal });
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > maxBytes) throw new TooLarge();
      chunks.push(chunk);
    }
    const contentType = headers['content-type'] as string | undefined;
    return { status: statusCode, contentType, body: Buffer.concat(chunks) };
  };

  /** What the owner answers the caller, handed to the mirror. */
  async serve(path = '/v1/things/1', rules?: Rules): Promise<Outcome | undefined> {
    const signal = new AbortController().signal;
    const answer = await this.ask('monolith', { signal, maxBytes: 1e9 }, path);
    return this.mirror.take({
      ...{ context: 'shop', operation: 'GET /v1/things/{id}', since: 'now', owner: 'monolith', request: path, rules },
      served: { side: 'monolith', answer },
      ask: (side, options) => this.ask(side, options, path),
    });
  }

  get counts() {
    return this.figures.contexts()['shop']!.operations['GET /v1/things/{id}']!;
  }

  get divergences() {
    return this.figures.contexts()['shop']!.divergences;
  }

  async kill(side: Side): Promise<void> {
    this.#servers[side].closeAllConnections();
    await new Promise((resolve) => this.#servers[side].close(resolve));
  }

  async stop(): Promise<void> {
    await this.mirror.close();
    for (const side of ['monolith', 'service'] as const) if (this.#servers[side].listening) await this.kill(side);
  }
}

export const sendJson = (res: ServerResponse, value: unknown, status = 200, type = 'application/json') =>
  res.writeHead(status, { 'content-type': type }).end(JSON.stringify(value));
