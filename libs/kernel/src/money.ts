import { z } from 'zod';

/** An amount in integer minor units (cents) of one ISO 4217 currency. */
export const Money = z
  .strictObject({
    amount: z.int().min(0).max(Number.MAX_SAFE_INTEGER),
    currency: z.string().regex(/^[A-Z]{3}$/, 'an ISO 4217 code such as EUR'),
  })
  .meta({ id: 'Money' });
export type Money = z.output<typeof Money>;

export const money = (amount: number, currency: string): Money => ({ amount, currency });

/** Sum of two amounts. Throws a RangeError on mixed currencies: adding them is a bug, never bad input. */
export function addMoney(a: Money, b: Money): Money {
  if (a.currency !== b.currency) throw new RangeError(`Cannot add ${a.currency} and ${b.currency}`);
  return { amount: a.amount + b.amount, currency: a.currency };
}

export const timesMoney = (unit: Money, quantity: number): Money => ({
  amount: unit.amount * quantity,
  currency: unit.currency,
});
