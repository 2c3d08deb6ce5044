import { randomUUID } from 'node:crypto';
import type { Figures } from '@banyan/extraction/parity';
import { rootLogger } from '@banyan/platform/telemetry';
import { Agent, request } from 'undici';

const EVERY_MS = 500;
const TIMEOUT_MS = 2_000;

/** Tells the control plane what has been counted, while that changes. Each report holds everything, so a lost one does no harm. */
export class Reporter {
  readonly #agent = new Agent({ connections: 1, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
  readonly #instance = randomUUID();
  readonly #timer: NodeJS.Timeout;
  #sending = false;
  #told = false;
  /** The control plane that took the last one. */
  #turn = 0;

  constructor(
    private readonly figures: Figures,
    /** Of several, one acts and takes reports. */
    private readonly controlUrls: readonly string[],
    private readonly token: string,
  ) {
    this.#timer = setInterval(() => void this.#report(), EVERY_MS).unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#report();
    await this.#agent.destroy();
  }

  async #report(): Promise<void> {
    if (this.#sending) return;
    const report = this.figures.report(this.#instance, 'proxy');
    if (!report) return;
    this.#sending = true;
    try {
      await this.#send(JSON.stringify(report));
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

  /** To the one that took the last report, else to the next ones. Throws when none takes it. */
  async #send(body: string): Promise<void> {
    let failure: unknown;
    for (const _ of this.controlUrls)
      try {
        return await this.#post(this.controlUrls[this.#turn]!, body);
      } catch (error) {
        failure = error;
        this.#turn = (this.#turn + 1) % this.controlUrls.length;
      }
    throw failure;
  }

  async #post(controlUrl: string, body: string): Promise<void> {
    const answer = await request(`${controlUrl.replace(/\/+$/, '')}/control/reports`, {
      ...{ method: 'POST', body, dispatcher: this.#agent },
      headers: { 'content-type': 'application/json', authorization: `Bearer ${this.token}` },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    await answer.body.dump();
    if (answer.statusCode >= 300) throw new Error(`the control plane answered a report with ${answer.statusCode}`);
  }
}
