import { describe, expect, it } from 'vitest';
import { type Occasion, wordingOf } from './message.js';

const orderId = '01990000-0000-7000-8000-000000000001';

describe('the wording of a message', () => {
  it.each<[Occasion, string]>([
    [{ kind: 'welcome' }, 'Your account is ready.'],
    [{ kind: 'order-confirmed', orderId, total: { amount: 129_900, currency: 'EUR' } }, 'EUR 1,299.00'],
    [{ kind: 'order-confirmed', orderId, total: { amount: 1_299, currency: 'JPY' } }, 'JPY 1,299.'],
    [{ kind: 'order-rejected', orderId, reason: 'OUT_OF_STOCK' }, 'OUT_OF_STOCK'],
    [{ kind: 'order-cancelled', orderId }, orderId],
    [{ kind: 'order-shipped', orderId, trackingNumber: 'BN-1' }, 'tracking number is BN-1'],
    [{ kind: 'order-shipped', orderId, trackingNumber: null }, 'has left our warehouse.\n'],
    [{ kind: 'order-delivered', orderId }, 'was delivered'],
  ])('%o', (occasion, expected) => {
    const { subject, body } = wordingOf(occasion, 'Ada');
    expect(subject).not.toBe('');
    expect(body).toContain('Hello Ada,');
    expect(body).toContain(expected);
  });

  it('given a customer not heard of yet, it greets without a name', () => {
    expect(wordingOf({ kind: 'welcome' }, undefined).body).toMatch(/^Hello,\n/);
  });
});
