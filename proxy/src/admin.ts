import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mergeDivergences } from '@banyan/extraction/parity';
import { type Readiness, metrics, readiness as processReadiness } from '@banyan/platform/telemetry';
import type { Proxy } from './proxy.js';

interface AdminAnswer {
  status?: number;
  type?: string;
  text: string;
}

/** `/metrics`, `/livez`, `/readyz` and `/divergences`, on a port that is never published. */
export class AdminServer {
  readonly #server: Server;

  constructor(proxy: Proxy, readiness: Readiness = processReadiness) {
    const json = (value: unknown, status = 200): AdminAnswer => ({ status, text: `${JSON.stringify(value)}\n` });
    const pages: Record<string, () => AdminAnswer | Promise<AdminAnswer>> = {
      '/livez': () => json({ status: 'alive' }),
      '/readyz': async () => {
        const report = await readiness.report();
        return json(report, report.status === 'ready' ? 200 : 503);
      },
      '/metrics': async () => ({ type: metrics.contentType, text: await metrics.expose() }),
      '/divergences': () => {
        const reports = Object.values(proxy.edge.figures.contexts());
        return json({ items: mergeDivergences(reports.map(({ divergences }) => divergences)) });
      },
    };
    this.#server = createServer({ headersTimeout: 5_000, requestTimeout: 5_000 }, (request, response) => {
      const page = pages[(request.url ?? '').split('?', 1)[0]!];
      const reads = request.method === 'GET' || request.method === 'HEAD';
      void (async () => {
        if (!page) return json({ status: 'unknown path' }, 404);
        if (!reads) return json({ status: 'method not allowed' }, 405);
        return page();
      })()
        .catch(() => json({ status: 'failed' }, 500))
        .then(({ status = 200, type = 'application/json', text }) =>
          response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(text),
        );
    });
    this.#server.maxConnections = 100;
  }

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

  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}
