import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { type AddressInfo, Server as NetServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Canary } from '@banyan/extraction/flags';
import { Figures, Mirror, type MirrorOptions, type ReadOperations } from '@banyan/extraction/parity';
import { type Metrics, metrics as processMetrics, rootLogger } from '@banyan/platform/telemetry';
import { AccessLog } from './access-log.js';
import { admit } from './admission.js';
import type { Directory } from './directory.js';
import type { Edge, Limits } from './edge.js';
import { Exchange } from './exchange.js';
import { Origins } from './headers.js';
import { Meters } from './meters.js';
import { type Refusal, malformed, refusalBytes, refuse, unforeseen } from './problem.js';
import { Sweep } from './sweep.js';
import { newTraceparent, traceIdOf } from './trace.js';
import { asksForTunnel, tunnel } from './tunnel.js';
import { type SharedTokens, WriteMemory } from './who.js';

export const defaultLimits: Limits = {
  headersMs: 10_000,
  requestMs: 30_000,
  uploadMs: 10 * 60_000,
  candidateMs: 1_000,
  holdMs: 2_000,
  bodyBytes: 1_048_576,
  connections: 10_000,
  requestsPerSocket: 10_000,
  drainMs: 10_000,
};

/** Idle clients may come back for this long. Longer than what stands before us keeps connections (60 s, mostly). */
const KEEP_ALIVE_MS = 72_000;
/** Once asked to stop: how long idle connections stay, so that a request just under way on one is still answered. */
const LINGER_MS = 500;
const MAX_HEAD_BYTES = 16 * 1024;

export interface ProxyOptions {
  directory: Directory;
  canary: Canary;
  operations: ReadOperations;
  limits?: Partial<Limits>;
  /** Default true. */
  servedBy?: boolean;
  /** Addresses and networks of proxies in front of this one. */
  trustedProxies?: readonly string[];
  /** What this proxy and others know together. */
  shared?: SharedTokens;
  metrics?: Metrics;
  access?: AccessLog;
  mirror?: Partial<MirrorOptions>;
}

/** The strangler proxy: one server, and everything that a request needs. */
export class Proxy {
  readonly edge: Edge;
  readonly #server: Server;
  readonly #tunnels = new Set<Duplex>();
  #closing: Promise<void> | undefined;

  constructor(options: ProxyOptions) {
    const { directory, canary, operations } = options;
    const limits = { ...defaultLimits, ...options.limits };
    const figures = new Figures();
    this.edge = {
      ...{ directory, canary, operations, limits, figures },
      memory: new WriteMemory({ shared: options.shared }),
      origins: new Origins(options.trustedProxies ?? []),
      sweep: new Sweep(),
      mirror: new Mirror(figures, options.mirror),
      meters: new Meters(options.metrics ?? processMetrics),
      access: options.access ?? new AccessLog('info'),
      servedBy: options.servedBy ?? true,
      closing: false,
    };
    this.#count();
    directory.onChange(() => this.#count());
    this.#server = this.#createServer(limits);
  }

  /** Rejects with EADDRINUSE when the port is taken. */
  async listen(port: number, host: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /**
   * Takes no more connections, finishes what runs, tells each connection with its last answer to close, and cuts off
   * what is left after `drainMs`: tunnels and endless streams.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  #createServer(limits: Limits): Server {
    const server = createServer({
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: limits.headersMs,
      // Uploads have longer; shorter limits are watched by each exchange.
      requestTimeout: limits.uploadMs,
      connectionsCheckingInterval: 1_000,
      keepAliveTimeout: KEEP_ALIVE_MS,
      noDelay: true,
      insecureHTTPParser: false,
      shouldUpgradeCallback: (request) => asksForTunnel(request),
    });
    // Node leaves headers past its limit out in silence; `admit` counts them instead, and the bytes are bounded.
    server.maxHeadersCount = 0;
    server.maxConnections = limits.connections;
    server.maxRequestsPerSocket = limits.requestsPerSocket;
    server.on('request', this.#onRequest);
    server.on('checkContinue', this.#onRequest);
    server.on('checkExpectation', (_, response: ServerResponse) =>
      refuse(
        response,
        { status: 417, code: 'MALFORMED_REQUEST', detail: 'The only expectation is 100-continue', close: true },
        traceIdOf(newTraceparent()),
      ),
    );
    server.on('upgrade', this.#onUpgrade);
    server.on('connect', (_, socket: Duplex) =>
      socket.end(refusalBytes({ status: 405, code: 'METHOD_NOT_ALLOWED', detail: 'This is no forward proxy' })),
    );
    server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
      if (error.code === 'ECONNRESET' || !socket.writable || (socket as Socket).bytesWritten > 0) socket.destroy();
      else socket.end(refusalBytes(unreadable(error)));
    });
    return server;
  }

  readonly #onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    try {
      this.#take(request, response);
    } catch (err) {
      // One request that we did not foresee must not end all the others.
      rootLogger().error({ msg: 'a request could not be handled', err });
      if (response.headersSent) response.destroy();
      else this.#refuse(response, unforeseen);
    }
  };

  #take(request: IncomingMessage, response: ServerResponse): void {
    const { edge } = this;
    const admitted = admit(request);
    if ('status' in admitted) return this.#refuse(response, admitted);
    if (admitted.body === 'sized' && !admitted.upload && admitted.length > edge.limits.bodyBytes)
      return this.#refuse(response, {
        ...{ status: 413, code: 'BODY_TOO_LARGE', close: true },
        detail: `At most ${edge.limits.bodyBytes} bytes`,
      });
    const route = edge.directory.match(admitted.path);
    if (!route)
      return this.#refuse(response, {
        ...{ status: 404, code: 'ROUTE_NOT_FOUND', detail: 'There is nothing at this path' },
        close: admitted.body !== 'none',
      });
    new Exchange(edge, request, response, admitted, route).start();
  }

  #refuse(response: ServerResponse, refusal: Refusal): void {
    const traceId = traceIdOf(newTraceparent());
    this.edge.meters.happened('refused', '');
    refuse(response, this.edge.closing ? { ...refusal, close: true } : refusal, traceId);
    const { status } = refusal;
    this.edge.access.write({
      ...{ method: response.req.method ?? '', route: '', context: '', side: 'proxy', status, ms: 0, traceId },
    });
  }

  readonly #onUpgrade = (request: IncomingMessage, socket: Duplex): void => {
    const admitted = admit(request);
    const refusal = 'status' in admitted ? admitted : undefined;
    const route = 'status' in admitted ? undefined : this.edge.directory.match(admitted.path);
    socket.on('error', () => socket.destroy());
    if (!route || 'status' in admitted)
      return void socket.end(refusalBytes(refusal ?? { ...malformed('There is nothing at this path'), status: 404 }));
    this.#tunnels.add(socket);
    socket.once('close', () => this.#tunnels.delete(socket));
    tunnel(this.edge, request, socket, admitted, route);
  };

  /** Figures are kept for contexts that are on their way out, from the moment each stage began. */
  #count(): void {
    for (const { context, stage, since } of this.edge.directory.contexts)
      if (stage === 'monolith') this.edge.figures.end(context);
      else this.edge.figures.begin(context, since);
  }

  async #close(): Promise<void> {
    const { edge } = this;
    edge.closing = true;
    const server = this.#server;
    // http.Server's own close() also ends idle connections, at once: a request that is on its way there would be lost.
    const closed = new Promise<void>((resolve) => NetServer.prototype.close.call(server, () => resolve()));
    const linger = setTimeout(() => server.closeIdleConnections(), LINGER_MS);
    const again = setInterval(() => server.closeIdleConnections(), LINGER_MS * 2);
    const cut = setTimeout(() => {
      server.closeAllConnections();
      for (const socket of this.#tunnels) socket.destroy();
    }, edge.limits.drainMs);
    await closed;
    for (const timer of [linger, again, cut]) clearTimeout(timer);
    await edge.mirror.close();
    await edge.directory.close();
    edge.sweep.stop();
    edge.access.flush();
  }
}

function unreadable({ code }: NodeJS.ErrnoException): Refusal {
  if (code === 'HPE_HEADER_OVERFLOW')
    return { status: 431, code: 'HEADERS_TOO_LARGE', detail: `The head has more than ${MAX_HEAD_BYTES} bytes` };
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return { status: 408, code: 'REQUEST_TIMEOUT', detail: 'The request took too long to arrive' };
  return malformed('This is not a request that can be read');
}
