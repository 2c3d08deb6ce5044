import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { metrics as processMetrics, type Metrics } from './metrics.js';
import { readiness as processReadiness, type Readiness } from './readiness.js';

export interface InternalServer {
  /** The port it listens on: the one asked for, or the one the system chose for 0. */
  readonly port: number;
  close(): Promise<void>;
}

export interface InternalServerOptions {
  port: number;
  host?: string;
  metrics?: Metrics;
  readiness?: Readiness;
}

/**
 * `/metrics`, `/livez` and `/readyz` on a port of their own, which is never published. Rejects with `EADDRINUSE` when
 * the port is taken.
 *
 * Plain node:http and not @nestjs/terminus: probes have to answer while Nest is still starting and while it is being
 * closed, a second port would need a second Nest app, and terminus alone takes 190 ms to load.
 */
export async function startInternalServer(options: InternalServerOptions): Promise<InternalServer> {
  const { metrics = processMetrics, readiness = processReadiness } = options;

  const routes: Record<string, (response: ServerResponse) => Promise<void> | void> = {
    '/livez': (response) => json(response, 200, { status: 'alive' }),
    '/readyz': async (response) => {
      const report = await readiness.report();
      json(response, report.status === 'ready' ? 200 : 503, report);
    },
    '/metrics': async (response) => {
      const text = await metrics.expose();
      response.writeHead(200, { 'content-type': metrics.contentType }).end(text);
    },
  };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const route = routes[(request.url ?? '').split('?', 1)[0]!];
    if (!route) return json(response, 404, { status: 'unknown path' });
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      return json(response, 405, { status: 'method not allowed' });
    }
    await route(response);
  };

  const server = createServer({ headersTimeout: 5_000, requestTimeout: 5_000 }, (request, response) => {
    answer(request, response).catch(() => {
      if (response.headersSent) response.destroy();
      else json(response, 500, { status: 'failed' });
    });
  });
  server.maxConnections = 100;

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host ?? '127.0.0.1', () => {
      server.off('error', reject);
      resolve();
    });
  });

  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function json(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(`${JSON.stringify(body)}\n`);
}
