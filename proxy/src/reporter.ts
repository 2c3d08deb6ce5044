import { randomUUID } from 'node:crypto';
import type { Figures } from '@banyan/extraction/parity';
import { rootLogger } from '@banyan/platform/telemetry';
import { Pool } from 'undici';

const EVERY_MS = 500;
const TIMEOUT_MS = 2_000;

/** Tells the control plane what has been counted, while that changes. Each report holds everything, so a lost one does no harm. */
export class Reporter {
  readonly #pool: Pool;
  readonly #path: string;
  readonly #instance = randomUUID();
  readonly #timer: NodeJS.Timeout;
  #sending = false;
  #told = false;

  constructor(
    private readonly figures: Figures,
    controlUrl: string,
    private readonly token: string,
  ) {
    const { origin, pathname } = new URL(controlUrl);
    this.#path = `${pathname.replace(/\/+$/, '')}/control/reports`;
    this.#pool = new Pool(origin, { connections: 1, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
    this.#timer = setInterval(() => void this.#report(), EVERY_MS).unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#report();
    await this.#pool.destroy();
  }

  async #report(): Promise<void> {
    if (this.#sending) return;
    const report = this.figures.report(this.#instance, 'proxy');
    if (!report) return;
    this.#sending = true;
    try {
      const { statusCode, body } = await this.#pool.request({
        ...{ method: 'POST', path: this.#path, body: JSON.stringify(report) },
        headers: { 'content-type': 'application/json', authorization: `Bearer ${this.token}` },
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      await body.dump();
      if (statusCode >= 300) throw new Error(`the control plane answered a report with ${statusCode}`);
      this.#told = false;
    } catch (err) {
      this.figures.undelivered();
      // Once: the control plane may be away for long, and everything goes on without it.
      if (!this.#told) rootLogger().warn({ msg: 'a report was not taken', err });
      this.#told = true;
    } finally {
      this.#sending = false;
    }
  }
}
