import { type Cart as CartSchema, type OrderItem as OrderItemSchema, orders } from '@banyan/contracts';
import { type Money, addMoney, money, timesMoney } from '@banyan/kernel';
import type { z } from 'zod';

export type CartShown = z.output<typeof CartSchema>;
export type OrderItem = z.output<typeof OrderItemSchema>;

/** What an empty cart is worth nothing in. */
export const SHOP_CURRENCY = 'EUR';

export const MAX_LINES = 100;

/** A line of a cart with what the product costs now. Lines are in the order in which they were added. */
export type CartLine = OrderItem;

export type Cart = { state: 'empty'; version: number } | { state: 'filled'; version: number; lines: CartLine[] };

/** A cart from its rows. */
export function cartOf(version: number, lines: readonly CartLine[]): Cart {
  const offered = sellable(lines);
  return offered.length > 0 ? { state: 'filled', version, lines: offered } : { state: 'empty', version };
}

/**
 * The lines that can be bought together. A product may change its currency while it lies in a cart; such a line is
 * left out, and shows again when the product's currency is the cart's again.
 */
const sellable = (lines: readonly CartLine[]): CartLine[] =>
  lines.filter((line) => line.unitPrice.currency === lines[0]!.unitPrice.currency);

/**
 * The cart after `sku` was put into it, or why it may not be: PRODUCT_UNKNOWN (no such line came to be), CURRENCY_MIXED,
 * CART_FULL (100 lines, or worth more than an integer can count).
 */
export function cartWith(sku: string, version: number, lines: readonly CartLine[]): Cart {
  const put = lines.find((line) => line.sku === sku);
  if (!put) throw orders.fail('PRODUCT_UNKNOWN', 'No product has this SKU', { sku });
  if (lines.length > MAX_LINES)
    throw orders.fail('CART_FULL', `A cart holds ${MAX_LINES} lines`, { maximum: MAX_LINES });
  const other = lines.find((line) => line.sku !== sku);
  if (other && other.unitPrice.currency !== put.unitPrice.currency)
    throw orders.fail('CURRENCY_MIXED', `The cart is in ${other.unitPrice.currency}`, { sku });
  if (!Number.isSafeInteger(totalOf(lines).amount))
    throw orders.fail('CART_FULL', 'The cart is worth more than can be ordered at once');
  return cartOf(version, lines);
}

/** What an order of these lines holds and costs: the prices are those of this moment. Throws CART_EMPTY. */
export function checkOut(lines: readonly CartLine[]): { items: OrderItem[]; total: Money } {
  const items = sellable(lines);
  if (items.length === 0) throw orders.fail('CART_EMPTY', 'There is nothing in the cart');
  return { items, total: totalOf(items) };
}

/** The sum of the lines; zero in the shop's currency when there are none. */
export const totalOf = (lines: readonly CartLine[]): Money =>
  lines.map(lineTotal).reduce(addMoney, money(0, lines[0]?.unitPrice.currency ?? SHOP_CURRENCY));

const lineTotal = (line: CartLine): Money => timesMoney(line.unitPrice, line.quantity);

/** The cart as its owner sees it. */
export function showCart(cart: Cart): CartShown {
  const lines = cart.state === 'filled' ? cart.lines : [];
  return {
    items: lines.map((line) => ({ ...line, lineTotal: lineTotal(line) })),
    total: totalOf(lines),
    version: cart.version,
  };
}
