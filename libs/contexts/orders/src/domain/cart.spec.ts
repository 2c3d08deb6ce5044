import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type CartLine, MAX_LINES, SHOP_CURRENCY, cartOf, cartWith, checkOut, showCart, totalOf } from './cart.js';

const line = (sku: string, quantity = 1, amount = 500, currency = 'EUR'): CartLine => ({
  sku,
  productName: `The ${sku}`,
  quantity,
  unitPrice: { amount, currency },
});
const code = (code: string) => expect.objectContaining({ code });

describe('A cart', () => {
  it('without lines totals zero in the currency of the shop', () => {
    expect(showCart(cartOf(3, []))).toEqual({ items: [], total: { amount: 0, currency: SHOP_CURRENCY }, version: 3 });
  });

  it('shows what each line and all of them cost', () => {
    const cart = showCart(cartOf(2, [line('mug', 2, 1299), line('tea', 3, 450)]));
    expect(cart.items.map(({ lineTotal }) => lineTotal.amount)).toEqual([2598, 1350]);
    expect(cart.total).toEqual({ amount: 3948, currency: 'EUR' });
  });

  it('takes a product in its own currency', () => {
    expect(cartWith('tea', 2, [line('mug'), line('tea')]).state).toBe('filled');
  });

  it('refuses a product in another currency', () => {
    expect(() => cartWith('tea', 2, [line('mug'), line('tea', 1, 500, 'USD')])).toThrow(code('CURRENCY_MIXED'));
    expect(() => cartWith('mug', 2, [line('mug', 1, 500, 'USD'), line('tea')])).toThrow(code('CURRENCY_MIXED'));
  });

  it('refuses a product that is not there', () => {
    expect(() => cartWith('tea', 2, [line('mug')])).toThrow(code('PRODUCT_UNKNOWN'));
  });

  it('holds a hundred lines', () => {
    const lines = Array.from({ length: MAX_LINES }, (_, index) => line(`sku-${index}`));
    expect(cartWith('sku-0', 1, lines).state).toBe('filled');
    expect(() => cartWith('tea', 1, [...lines, line('tea')])).toThrow(code('CART_FULL'));
  });

  it('refuses to be worth more than can be counted', () => {
    expect(() => cartWith('moon', 1, [line('moon', 1000, Number.MAX_SAFE_INTEGER)])).toThrow(code('CART_FULL'));
  });

  it('leaves out a line whose product has changed its currency', () => {
    const cart = cartOf(1, [line('mug'), line('tea', 1, 700, 'USD'), line('pot', 2)]);
    expect(showCart(cart).items.map(({ sku }) => sku)).toEqual(['mug', 'pot']);
    expect(showCart(cart).total).toEqual({ amount: 1500, currency: 'EUR' });
  });

  it('that is empty cannot be checked out', () => {
    expect(() => checkOut([])).toThrow(code('CART_EMPTY'));
  });
});

describe('Whatever is in a cart', () => {
  const lines = fc.uniqueArray(
    fc.record({
      sku: fc.stringMatching(/^[a-z]{1,6}$/),
      productName: fc.string(),
      quantity: fc.integer({ min: 1, max: 1000 }),
      unitPrice: fc.record({
        amount: fc.integer({ min: 0, max: 10_000_000 }),
        currency: fc.constantFrom('EUR', 'USD'),
      }),
    }),
    { selector: ({ sku }) => sku, maxLength: MAX_LINES },
  );

  it('the order totals the sum of its lines, in one currency, as the cart showed it', () => {
    fc.assert(
      fc.property(lines, (lines) => {
        const cart = cartOf(1, lines);
        expect(cart.state).toBe(lines.length > 0 ? 'filled' : 'empty');
        fc.pre(cart.state === 'filled');
        const { items, total } = checkOut(lines);
        expect(total.amount).toBe(items.reduce((sum, item) => sum + item.quantity * item.unitPrice.amount, 0));
        expect(new Set(items.map((item) => item.unitPrice.currency))).toEqual(new Set([total.currency]));
        expect(showCart(cart).total).toEqual(total);
        expect(totalOf(items)).toEqual(total);
      }),
      { numRuns: 1_000 },
    );
  });
});
