import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { actorKey, anonymous, hasRole, system } from './actor.js';
import { command, defineContext, event, query } from './context.js';
import { DomainError, reasonOf } from './errors.js';
import { Id, derivedId, newId, timeOfId } from './ids.js';
import { Money, addMoney, money, timesMoney } from './money.js';

describe('an id', () => {
  it('is a UUIDv7 that carries its time and sorts by it', () => {
    const before = Date.now();
    const ids = Array.from({ length: 100 }, newId);
    expect(ids).toEqual([...ids].sort());
    for (const id of ids) {
      expect(Id.safeParse(id).success).toBe(true);
      expect(id[14]).toBe('7');
      expect(timeOfId(id)).toBeGreaterThanOrEqual(before);
    }
  });

  it('that a message hands out is the same each time, and differs by message, time and position', () => {
    const at = new Date('2026-03-01T10:00:00.000Z');
    const id = derivedId('message', at, 0);
    expect(derivedId('message', at, 0)).toBe(id);
    expect(timeOfId(id)).toBe(at.getTime());
    expect(new Set([id, derivedId('other', at, 0), derivedId('message', at, 1)]).size).toBe(3);
  });
});

describe('money', () => {
  it('is whole minor units of one currency, never negative', () => {
    for (const bad of [
      { amount: 1.5, currency: 'EUR' },
      { amount: -1, currency: 'EUR' },
      { amount: 1, currency: 'euro' },
      { amount: 1 },
    ])
      expect(Money.safeParse(bad).success).toBe(false);
    expect(Money.parse(money(0, 'EUR'))).toEqual({ amount: 0, currency: 'EUR' });
  });

  it('multiplies as repeated adding does', () => {
    fc.assert(
      fc.property(fc.nat(1_000_000), fc.integer({ min: 1, max: 50 }), (amount, times) => {
        const sum = Array.from({ length: times }, () => money(amount, 'EUR')).reduce(addMoney);
        expect(timesMoney(money(amount, 'EUR'), times)).toEqual(sum);
      }),
      { numRuns: 1000 },
    );
  });

  it('of two currencies is never added', () => {
    expect(() => addMoney(money(1, 'EUR'), money(1, 'USD'))).toThrow(RangeError);
  });
});

describe('an actor', () => {
  const user = (...roles: ('customer' | 'staff' | 'admin')[]) => ({ kind: 'user' as const, id: newId(), roles });

  it('that is an admin may do what staff may; nobody may without the role', () => {
    expect(hasRole(user('admin'), 'staff')).toBe(true);
    expect(hasRole(user('staff'), 'admin')).toBe(false);
    expect(hasRole(user('customer'), 'staff')).toBe(false);
    expect(hasRole(anonymous, 'customer')).toBe(false);
    expect(hasRole(system('seed'), 'admin')).toBe(true);
  });

  it('has a key of its own', () => {
    const [a, b] = [user(), user()];
    expect(new Set([actorKey(a), actorKey(b), actorKey(anonymous), actorKey(system('x'))]).size).toBe(4);
  });
});

it('whatever is thrown, there is a reason in words', () => {
  expect(reasonOf(new Error('no room'))).toBe('no room');
  expect(reasonOf(Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }))).toBe('ECONNREFUSED');
  expect(reasonOf('just text')).toBe('just text');
  for (const nothing of [undefined, null]) expect(reasonOf(nothing)).toBe(String(nothing));
});

describe('a contract', () => {
  const empty = z.strictObject({});
  const spec = { routes: [], queries: {}, commands: {}, events: {}, subscribes: [] };

  it('names its events and knows the kind of every error code', () => {
    const shop = defineContext('shop', {
      ...spec,
      commands: { sell: command({ input: empty, output: empty, key: () => 'x', errors: { SOLD_OUT: 'conflict' } }) },
      events: { Sold: event(1, 'thing', empty) },
    });
    expect(shop.events.Sold.name).toBe('shop.Sold');
    const error = shop.fail('SOLD_OUT', 'none left', { left: 0 });
    expect(error).toBeInstanceOf(DomainError);
    expect(error).toMatchObject({ code: 'SOLD_OUT', kind: 'conflict', data: { left: 0 } });
  });

  it('is refused when one name is a query and a command, or one code has two kinds', () => {
    const sell = command({ input: empty, output: empty, key: () => 'x', errors: { NO: 'conflict' } });
    const ask = query({ input: empty, output: empty, errors: { NO: 'not_found' } });
    expect(() => defineContext('shop', { ...spec, queries: { sell: ask }, commands: { sell } })).toThrow(TypeError);
    expect(() => defineContext('shop', { ...spec, queries: { ask }, commands: { sell } })).toThrow(TypeError);
  });
});
