import { createHmac } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { Notice } from './bank.js';

export interface WebhookOptions {
  url: string;
  secret: string;
  /** Called when the receiver has answered 2xx. */
  delivered(eventId: string): Promise<void>;
  /** First wait after a failure, ms; it doubles up to a minute. */
  backOffMs?: number;
}

/** Tells the shop what happened, again and again until it answers 2xx. */
export class Webhooks {
  readonly #stop = new AbortController();

  constructor(private readonly options: WebhookOptions) {}

  send(notice: Notice): void {
    void this.#deliver(notice).catch(() => {}); // only when stopped; what is undelivered is sent at the next start
  }

  stop(): void {
    this.#stop.abort();
  }

  async #deliver(notice: Notice): Promise<void> {
    const { url, secret, delivered, backOffMs = 200 } = this.options;
    const body = JSON.stringify(notice);
    for (let wait = backOffMs; ; wait = Math.min(wait * 2, 60_000)) {
      const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(10_000)]);
      const headers = { 'content-type': 'application/json', 'banyan-signature': signature(secret, body) };
      const response = await fetch(url, { method: 'POST', body, headers, signal }).catch(() => undefined);
      await response?.body?.cancel();
      if (response?.ok) return delivered(notice.eventId);
      await pause(wait * (0.5 + Math.random()), undefined, { signal: this.#stop.signal });
    }
  }
}

/** The provider's side of the agreement: written down a second time, as a real provider would have its own. */
function signature(secret: string, body: string): string {
  const timestamp = Math.floor(Date.now() / 1000);
  return `t=${timestamp},v1=${createHmac('sha256', secret).update(`${timestamp}.${body}`).digest('hex')}`;
}
