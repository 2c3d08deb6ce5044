import type { Money } from '@banyan/kernel';
import type { ProviderWord } from './domain/payment.js';

/**
 * What we need of a payment provider. Every call may be repeated: it carries a key, and the provider answers the
 * second call with what the first one did. Throws PROVIDER_UNAVAILABLE when it cannot tell what has happened.
 */
export abstract class PaymentProvider {
  /** Asks for an order's money. The order's id is the key, so an order is charged at most once, whoever asks. */
  abstract authorise(ask: { orderId: string; token: string; amount: Money }): Promise<ProviderWord>;

  /** What the provider knows of an order; undefined when it was never asked. */
  abstract find(orderId: string): Promise<ProviderWord | undefined>;

  /** Takes what was authorised. `voided` or `declined` when there is nothing left to take. */
  abstract capture(providerRef: string, amount: Money): Promise<ProviderWord>;

  /** Lets go what is held. Answers where it stands now: `captured` when it came too late. */
  abstract void(providerRef: string): Promise<ProviderWord>;

  /** Pays back. False when the provider refuses for good. */
  abstract refund(providerRef: string, amount: Money, refundId: string): Promise<boolean>;
}
