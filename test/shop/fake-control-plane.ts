import { type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Routing } from '@banyan/extraction';

/** Says where every context is, as the control plane does, and does what a spec tells it. */
export class FakeControlPlane {
  readonly #streams = new Set<ServerResponse>();

  private constructor(
    private readonly server: Server,
    private routing: Routing,
  ) {}

  static async start(routing: Routing, token: string): Promise<FakeControlPlane> {
    const server = createServer();
    const control = new FakeControlPlane(server, routing);
    server.on('request', (request, response) => {
      if (request.url !== '/control/routing' || request.headers.authorization !== `Bearer ${token}`)
        return response.writeHead(404).end();
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      control.#streams.add(response.on('close', () => control.#streams.delete(response)));
      response.write(control.#said());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return control;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** How many processes listen. */
  get listeners(): number {
    return this.#streams.size;
  }

  say(routing: Routing): void {
    this.routing = { ...routing, revision: this.routing.revision + 1 };
    for (const stream of this.#streams) stream.write(this.#said());
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve));
    this.server.closeAllConnections();
    await closed;
  }

  #said(): string {
    return `event: routing\ndata: ${JSON.stringify(this.routing)}\n\n`;
  }
}
