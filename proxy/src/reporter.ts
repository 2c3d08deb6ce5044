import { randomUUID } from 'node:crypto';
import { ControlPlanes } from '@banyan/extraction/control-planes';
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
  /** Of several, one acts and takes reports. */
  readonly #planes: ControlPlanes;

  constructor(
    private readonly figures: Figures,
    controlUrls: readonly string[],
    private readonly token: string,
  ) {
    this.#planes = new ControlPlanes(controlUrls);
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

  /** Throws when none takes it. */
  async #send(body: string): Promise<void> {
    let failure: unknown;
    const taken = await this.#planes.ask((url) =>
      this.#post(url, body).then(
        () => true,
        (error: unknown) => void (failure = error),
      ),
    );
    if (!taken) throw failure;
  }

  async #post(controlUrl: string, body: string): Promise<void> {
    const answer = await request(`${controlUrl}/control/reports`, {
      ...{ method: 'POST', body, dispatcher: this.#agent },
      headers: { 'content-type': 'application/json', authorization: `Bearer ${this.token}` },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    await answer.body.dump();
    if (answer.statusCode >= 300) throw new Error(`the control plane answered a report with ${answer.statusCode}`);
  }
}
