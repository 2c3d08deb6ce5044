import type { Stage } from '@banyan/extraction/stage';
import type { ContextStatus } from '@banyan/extraction/status';
import { freePort } from '@banyan/testing';
import { once } from 'node:events';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { text } from 'node:stream/consumers';

export const OPERATOR_TOKEN = 'the token of an operator';

/** A control plane that does what the spec says, and nothing else: its HTTP API over contexts that are only told. */
export class ScriptedControlPlane {
  /** What was asked of it: `POST /control/contexts/inventory/target {"stage":"live"}`. */
  readonly asked: string[] = [];
  /** How often somebody began to follow the contexts. */
  followed = 0;
  /** Called when a target was set, to tell how it goes on. */
  onTarget: (context: string) => void = () => {};
  private readonly contexts = new Map<string, ContextStatus>();
  private readonly streams = new Set<ServerResponse>();
  private server: Server | undefined;
  private port = 0;

  constructor(...names: string[]) {
    for (const context of names) this.contexts.set(context, atRest(context));
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async start(): Promise<void> {
    this.server = createServer((request, response) => void this.serve(request, response));
    // Not one of the system's own: nobody else may have it while this one is away.
    this.port ||= await freePort();
    this.server.listen(this.port, '127.0.0.1');
    await once(this.server, 'listening');
  }

  async stop(): Promise<void> {
    const closed = new Promise((done) => this.server?.close(done));
    this.server?.closeAllConnections();
    this.streams.clear();
    await closed;
  }

  /** Changes what is known of a context, and tells everybody. */
  tell(context: string, change: Partial<ContextStatus>): ContextStatus {
    const status = { ...(this.contexts.get(context) as ContextStatus), ...change };
    this.contexts.set(context, status);
    for (const stream of this.streams) stream.write(eventOf(status));
    return status;
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request);
    const url = request.url ?? '';
    this.asked.push(`${request.method} ${url}${body && ` ${body}`}`);
    const json = (status: number, value: unknown) =>
      response
        .writeHead(status, { 'content-type': status < 400 ? 'application/json' : 'application/problem+json' })
        .end(JSON.stringify(value));
    if (request.headers.authorization !== `Bearer ${OPERATOR_TOKEN}`)
      return void json(401, { status: 401, code: 'UNAUTHENTICATED', detail: 'No operator token' });
    if (url === '/control/contexts') return void json(200, { items: [...this.contexts.values()] });
    if (url === '/control/stream') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (const status of this.contexts.values()) response.write(eventOf(status));
      this.streams.add(response);
      this.followed += 1;
      return;
    }
    if (url === '/control/dead-letters') return void json(200, { items: [deadLetter] });
    if (url === '/control/dead-letters/redrive') return void json(200, { redriven: 1 });
    const [, name = '', action] = /^\/control\/contexts\/([^/]+)(?:\/(.*))?$/.exec(url) ?? [];
    const status = this.contexts.get(name);
    if (!status) return void json(404, { status: 404, code: 'CONTEXT_UNKNOWN', detail: `There is no context ${name}` });
    const wish = (body ? JSON.parse(body) : {}) as { stage?: Stage; to?: Stage; percent?: number; frozen?: boolean };
    if (action === undefined) return void json(200, status);
    if (action === 'target' || action === 'rollback') {
      const target = wish.stage ?? wish.to ?? 'monolith';
      json(202, this.tell(name, { target, percent: wish.percent ?? status.percent, doing: 'starting' }));
      return this.onTarget(name);
    }
    if (action === 'freeze') return void json(200, this.tell(name, { frozen: wish.frozen }));
    if (action === 'divergences') return void json(200, { items: [divergence(name)] });
    if (action === 'evidence') return void json(200, { items: [evidence] });
    json(404, { status: 404, code: 'NOT_FOUND', detail: 'No such route' });
  }
}

const eventOf = (status: ContextStatus): string => `event: context\ndata: ${JSON.stringify(status)}\n\n`;

export const atRest = (context: string): ContextStatus => ({
  context,
  stage: 'monolith',
  target: 'monolith',
  percent: 0,
  owner: 'monolith',
  epoch: 1,
  frozen: false,
  doing: null,
  blocked: null,
  lag: null,
  backfill: null,
  parity: null,
  gates: [],
  transitions: [],
});

const gate = { name: 'read parity', ok: true, value: '200 of 200', limit: '50 samples', reason: null };
const evidence = { at: '2026-11-22T18:00:00.000Z', from: 'shadow', to: 'canary', gates: [gate], forced: false };
const deadLetter = {
  context: 'inventory',
  eventId: '0199a000-0000-7000-8000-000000000001',
  subscriber: 'orders',
  type: 'inventory.StockReserved',
  aggregate: 'A-1',
  attempts: 10,
  error: 'it is full',
  occurredAt: '2026-11-22T18:00:00.000Z',
};
const divergence = (context: string) => ({
  id: 'abc123',
  context,
  operation: 'GET /v1/stock/{sku}',
  path: '/available',
  kind: 'changed',
  verdict: 'difference',
  count: 3,
  firstSeen: '2026-11-22T18:00:00.000Z',
  lastSeen: '2026-11-22T18:00:01.000Z',
  samples: [
    { at: '2026-11-22T18:00:00.000Z', request: 'GET /v1/stock/A', pointer: '/available', expected: '3', actual: '4' },
  ],
  acknowledged: null,
});
