import { Injectable, type OnModuleDestroy } from '@nestjs/common';
import { payments } from '@banyan/contracts';
import type { Money } from '@banyan/kernel';
import { Config } from '@banyan/platform/config';
import { type ResilientHttp, type UpstreamAnswer, UpstreamFailure, resilientHttp } from '@banyan/platform/resilience';
import { z } from 'zod';
import type { ProviderWord } from './domain/payment.js';
import { PaymentProvider } from './payments.provider.js';

/** An authorisation as the provider shows it: after every request, and in its refusals (409). */
const Authorisation = z.object({
  id: z.string(),
  status: z.enum(['authorised', 'declined', 'requires_action', 'captured', 'voided']),
  reason: z.string().optional(),
  actionUrl: z.url().optional(),
});

const wordOf = ({ id, status, reason, actionUrl }: z.output<typeof Authorisation>): ProviderWord => ({
  outcome: status,
  providerRef: id,
  reason,
  actionUrl,
});

/** The provider behind PSP_URL, by default the built-in simulator. Every request that changes something has a key, so it may be sent again. */
@Injectable()
export class PspClient extends PaymentProvider implements OnModuleDestroy {
  readonly #http: ResilientHttp;

  constructor(config: Config) {
    super();
    const { pspUrl, pspTimeoutMs } = config.payments;
    const simulator = `http://${config.psp.host}:${config.psp.port}`;
    this.#http = resilientHttp({ baseUrl: pspUrl ?? simulator, timeoutMs: pspTimeoutMs, concurrency: 64 });
  }

  async authorise({
    orderId,
    token,
    amount,
  }: {
    orderId: string;
    token: string;
    amount: Money;
  }): Promise<ProviderWord> {
    const ask = { token, reference: orderId, ...amount };
    return this.#word(await this.#post('/authorisations', `authorise-${orderId}`, ask));
  }

  async find(orderId: string): Promise<ProviderWord | undefined> {
    const path = `/authorisations/by-reference/${encodeURIComponent(orderId)}`;
    const answer = await told(() => this.#http.call({ method: 'GET', path }));
    return answer.status === 404 ? undefined : this.#word(answer);
  }

  async capture(providerRef: string, { amount }: Money): Promise<ProviderWord> {
    return this.#word(await this.#post(`${pathOf(providerRef)}/captures`, `capture-${providerRef}`, { amount }));
  }

  async void(providerRef: string): Promise<ProviderWord> {
    return this.#word(await this.#post(`${pathOf(providerRef)}/voids`, `void-${providerRef}`, {}));
  }

  async refund(providerRef: string, { amount }: Money, refundId: string): Promise<boolean> {
    const answer = await this.#post(`${pathOf(providerRef)}/refunds`, `refund-${refundId}`, { amount });
    if (answer.status === 409) return false;
    this.#word(answer);
    return true;
  }

  async onModuleDestroy(): Promise<void> {
    await this.#http.close();
  }

  #post(path: string, key: string, json: object): Promise<UpstreamAnswer> {
    return told(() => this.#http.call({ method: 'POST', path, json, headers: { 'idempotency-key': key } }));
  }

  #word(answer: UpstreamAnswer): ProviderWord {
    if (answer.status >= 300 && answer.status !== 409)
      throw new Error(`The payment provider does not take our request: ${answer.status}`);
    return wordOf(Authorisation.parse(answer.json()));
  }
}

const pathOf = (providerRef: string): string => `/authorisations/${encodeURIComponent(providerRef)}`;

/** No answer is no refusal: money may have moved, so the caller has to ask again. */
async function told(call: () => Promise<UpstreamAnswer>): Promise<UpstreamAnswer> {
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof UpstreamFailure)) throw error;
    throw payments.fail('PROVIDER_UNAVAILABLE', 'The payment provider does not answer', error.data);
  }
}
