import { Injectable, Logger } from '@nestjs/common';
import { payments } from '@banyan/contracts';
import { money } from '@banyan/kernel';
import { type Client, InjectClient, Job, type JobContext } from '@banyan/messaging';
import { Config } from '@banyan/platform/config';
import { type Intent, type Payment, pendingIntents } from './domain/payment.js';
import { PaymentProvider } from './payments.provider.js';
import { SETTLE_JOB } from './payments.service.js';
import { PaymentStore } from './payments.store.js';

const pageSize = 100;
/* Provider calls at once. */
const lanes = 8;
const firstWaitMs = 1_000;
const longestWaitMs = 60_000;

/** Brings to an end what is open at the provider: voids, refunds, and challenges whose outcome we were not told. */
@Injectable()
export class Settlement {
  readonly #log = new Logger('payments.settlement');
  /** When each payment is worth another try. The rows say what is due; how often we ask is this process's affair. */
  readonly #pace = new Map<string, { waitMs: number; notBefore: number }>();
  /**
   * How long a request for money may still be on its way after its order was cancelled: all attempts of the client,
   * many times over. Until then an order that the provider does not know is asked about again.
   */
  readonly #lateRequestMs: number;

  constructor(
    private readonly store: PaymentStore,
    private readonly provider: PaymentProvider,
    config: Config,
    @InjectClient(payments) private readonly client: Client<typeof payments>,
  ) {
    this.#lateRequestMs = Math.max(120_000, 20 * config.payments.pspTimeoutMs);
  }

  @Job({ name: SETTLE_JOB, everyMs: 2_000 })
  async settle({ now, id }: JobContext): Promise<void> {
    if (id) {
      const payment = await this.store.find(id);
      if (payment) await this.attempt(payment, now);
      return;
    }
    const seen = new Set<string>();
    for (let page = await this.store.due(now, pageSize); page.length > 0;) {
      for (const payment of page) seen.add(payment.id);
      const last = page.at(-1);
      await Promise.all(
        Array.from({ length: lanes }, async () => {
          for (let payment = page.shift(); payment; payment = page.shift()) await this.attempt(payment, now);
        }),
      );
      page = await this.store.due(now, pageSize, last);
    }
    for (const id of this.#pace.keys()) if (!seen.has(id)) this.#pace.delete(id);
  }

  private async attempt(payment: Payment, now: Date): Promise<void> {
    const pace = this.#pace.get(payment.id) ?? { waitMs: firstWaitMs, notBefore: 0 };
    if (pace.notBefore > now.getTime()) return;
    let done = false;
    try {
      done = await this.bringToEnd(payment, now);
    } catch (error) {
      this.#log.warn({ msg: 'not settled, will be tried again', paymentId: payment.id, err: error });
    }
    if (done) this.#pace.delete(payment.id);
    else
      this.#pace.set(payment.id, {
        waitMs: Math.min(pace.waitMs * 2, longestWaitMs),
        notBefore: now.getTime() + pace.waitMs,
      });
  }

  private async bringToEnd(payment: Payment, now: Date): Promise<boolean> {
    const intents = pendingIntents(payment);
    if (intents.length === 0) return payment.status !== 'requires_action' || this.learnOutcome(payment);
    for (const intent of intents) {
      const done = intent.kind === 'void' ? this.void(payment, intent, now) : this.refund(payment, intent);
      if (!(await done)) return false;
    }
    return true;
  }

  private async void(payment: Payment, intent: Intent, now: Date): Promise<boolean> {
    const providerRef = payment.providerRef ?? (await this.provider.find(payment.orderId))?.providerRef;
    if (!providerRef) {
      const waited = now.getTime() - Date.parse(intent.at);
      return waited > this.#lateRequestMs && this.tell(payment, intent, true);
    }
    const word = await this.provider.void(providerRef);
    if (word.outcome === 'voided' || word.outcome === 'declined') return this.tell(payment, intent, true);
    if (word.outcome !== 'captured') return false;
    // Taken before the void came: writing that down turns the void into a refund.
    await this.client.capture({ orderId: payment.orderId });
    const taken = await this.store.find(payment.id);
    return taken !== undefined && this.bringToEnd(taken, now);
  }

  private async refund(payment: Payment, intent: Intent): Promise<boolean> {
    const amount = money(intent.amount, payment.currency!);
    const succeeded = await this.provider.refund(payment.providerRef!, amount, intent.id);
    if (!succeeded)
      this.#log.error({ msg: 'the provider refuses a refund', paymentId: payment.id, refundId: intent.id });
    return this.tell(payment, intent, succeeded);
  }

  private async tell(payment: Payment, { id, kind }: Intent, succeeded: boolean): Promise<true> {
    await this.client.settle({ paymentId: payment.id, intent: kind, intentId: id, succeeded });
    return true;
  }

  /** The customer may have answered a challenge without our being told: webhooks get lost. */
  private async learnOutcome({ id, orderId }: Payment): Promise<boolean> {
    const word = await this.provider.find(orderId);
    if (!word?.providerRef || word.outcome === 'requires_action') return false;
    await this.client.recordProviderEvent({
      eventId: `asked:${id}`,
      type: word.outcome === 'authorised' ? 'payment.authorised' : 'payment.declined',
      providerRef: word.providerRef,
      reason: word.reason ?? (word.outcome === 'authorised' ? undefined : word.outcome),
    });
    return true;
  }
}
