import type { Money } from '@banyan/kernel';

/** What happened that a customer is told about. */
export type Occasion =
  | { kind: 'welcome' }
  | { kind: 'order-confirmed'; orderId: string; total: Money }
  | { kind: 'order-rejected'; orderId: string; reason: string }
  | { kind: 'order-cancelled'; orderId: string }
  | { kind: 'order-shipped'; orderId: string; trackingNumber: string | null }
  | { kind: 'order-delivered'; orderId: string };

/** Subject and body of the message. `name` is undefined when the order was faster than the news of its customer. */
export function wordingOf(occasion: Occasion, name: string | undefined): { subject: string; body: string } {
  const { subject, sentence } = textOf(occasion);
  return { subject, body: `Hello${name === undefined ? '' : ` ${name}`},\n\n${sentence}\n` };
}

function textOf(occasion: Occasion): { subject: string; sentence: string } {
  switch (occasion.kind) {
    case 'welcome':
      return { subject: 'Welcome to Banyan', sentence: 'Your account is ready.' };
    case 'order-confirmed':
      return {
        subject: 'Your order is confirmed',
        sentence: `We have your order ${occasion.orderId} and your payment of ${amountOf(occasion.total)}.`,
      };
    case 'order-rejected':
      return {
        subject: 'We could not take your order',
        sentence: `Order ${occasion.orderId} was not accepted (${occasion.reason}). You have not been charged.`,
      };
    case 'order-cancelled':
      return {
        subject: 'Your order is cancelled',
        sentence: `Order ${occasion.orderId} is cancelled. Whatever you paid goes back to you.`,
      };
    case 'order-shipped':
      return {
        subject: 'Your order is on its way',
        sentence:
          `Order ${occasion.orderId} has left our warehouse.` +
          (occasion.trackingNumber === null ? '' : ` Its tracking number is ${occasion.trackingNumber}.`),
      };
    case 'order-delivered':
      return { subject: 'Your order has arrived', sentence: `Order ${occasion.orderId} was delivered. Enjoy it!` };
  }
}

/** Minor units as people write them: how many make one unit is the currency's own (100 cents, but 1 yen). */
function amountOf({ amount, currency }: Money): string {
  const format = new Intl.NumberFormat('en', { style: 'currency', currency, currencyDisplay: 'code' });
  return format.format(amount / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 2)).replace('\u00a0', ' ');
}
