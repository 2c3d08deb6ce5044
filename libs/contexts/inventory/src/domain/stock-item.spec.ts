import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { commit, expire, release, reserve, tombstone, type Decision, type Reservation } from './reservation.js';
import { addsUp, available, emptyItem, mergeLines, move, setOnHand, shortages, type StockItem } from './stock-item.js';

const item = (onHand: number, reserved = 0, sold = 0): StockItem => ({
  sku: 'MUG',
  onHand,
  reserved,
  sold,
  received: onHand + sold,
  version: 1,
});

describe('a stock item', () => {
  it('given 10 on hand, when 4 are held, then 6 are available and nothing has left', () => {
    expect(move(item(10), 'hold', 4)).toEqual({ ...item(10, 4), version: 2 });
  });

  it('given 4 held of 10, when they are sold, then 6 are on hand and 4 sold', () => {
    expect(move(item(10, 4), 'sell', 4)).toEqual({ ...item(6, 0, 4), version: 2 });
  });

  it('given 4 sold, when they come back, then they are on hand and no longer sold', () => {
    expect(move(item(6, 0, 4), 'takeBack', 4)).toEqual({ ...item(10), version: 2 });
  });

  it('given 3 available, when 4 are to be held, then it throws', () => {
    expect(() => move(item(10, 7), 'hold', 4)).toThrow(RangeError);
  });

  it('given 4 held, when a count says 3, then it is refused', () => {
    expect(setOnHand(item(10, 4), 3)).toBeUndefined();
  });

  it('given 4 sold of 10, when a count says 20, then 14 more were put in', () => {
    expect(setOnHand(item(6, 0, 4), 20)).toMatchObject({ onHand: 20, sold: 4, received: 24, version: 2 });
  });

  it('given the same count again, then nothing changes, the version neither', () => {
    const ten = item(10);
    expect(setOnHand(ten, 10)).toBe(ten);
  });

  it('given a SKU without stock, when a count says 0, then it exists at version 1', () => {
    expect(setOnHand(emptyItem('MUG'), 0)).toMatchObject({ onHand: 0, version: 1 });
  });
});

describe('lines', () => {
  it('are merged by SKU and come in SKU order', () => {
    const lines = [
      { sku: 'b', quantity: 1 },
      { sku: 'a', quantity: 2 },
      { sku: 'b', quantity: 3 },
    ];
    expect(mergeLines(lines)).toEqual([
      { sku: 'a', quantity: 2 },
      { sku: 'b', quantity: 4 },
    ]);
  });

  it('name what is short, an unknown SKU with none available', () => {
    const wanted = [
      { sku: 'MUG', quantity: 4 },
      { sku: 'NONE', quantity: 1 },
    ];
    expect(shortages([item(10, 7)], wanted)).toEqual([
      { sku: 'MUG', wanted: 4, available: 3 },
      { sku: 'NONE', wanted: 1, available: 0 },
    ]);
  });
});

/* A shop in memory: the decisions of the domain, applied as the store applies them. */
class Shop {
  readonly items = new Map<string, StockItem>();
  readonly reservations = new Map<string, Reservation>();
  now = 0;

  setStock(sku: string, onHand: number) {
    const next = setOnHand(this.items.get(sku) ?? emptyItem(sku), onHand);
    if (next) this.items.set(sku, next);
  }
  reserve(orderId: string, wanted: { sku: string; quantity: number }[]) {
    const lines = mergeLines(wanted);
    const decision = reserve(this.reservations.get(orderId), { orderId, lines, expiresAt: new Date(this.now + 10) });
    if (shortages([...this.items.values()], lines).length === 0) this.apply(decision);
  }
  commit(orderId: string) {
    this.apply(commit(this.reservations.get(orderId)));
  }
  release(orderId: string) {
    const known = this.reservations.get(orderId);
    if (known) this.apply(release(known));
    else this.reservations.set(orderId, tombstone(orderId, new Date(this.now)));
  }
  expire(orderId: string) {
    this.apply(expire(this.reservations.get(orderId), new Date(this.now)));
  }
  private apply(decision: Decision) {
    if (decision.outcome !== 'change') return;
    for (const { sku, quantity } of decision.to.lines)
      this.items.set(sku, move(this.items.get(sku)!, decision.movement, quantity));
    this.reservations.set(decision.to.orderId, decision.to);
  }

  quantities(status: Reservation['status'], sku: string): number {
    return [...this.reservations.values()]
      .filter((reservation) => reservation.status === status)
      .flatMap((reservation) => reservation.lines)
      .reduce((sum, line) => sum + (line.sku === sku ? line.quantity : 0), 0);
  }
}

const sku = fc.constantFrom('a', 'b', 'c');
const order = fc.constantFrom('o1', 'o2', 'o3', 'o4', 'o5');
const command = fc.oneof(
  fc.record({ do: fc.constant('setStock' as const), sku, onHand: fc.integer({ min: 0, max: 30 }) }),
  fc.record({
    do: fc.constant('reserve' as const),
    order,
    lines: fc.array(fc.record({ sku, quantity: fc.integer({ min: 1, max: 12 }) }), { minLength: 1, maxLength: 4 }),
  }),
  fc.record({ do: fc.constantFrom('commit' as const, 'release' as const, 'expire' as const), order }),
  fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 15 }) }),
);

describe('any sequence of commands', () => {
  it('keeps available + reserved + sold = received, and no counter goes below zero', () => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        const shop = new Shop();
        for (const each of commands) {
          const closed = [...shop.reservations.values()].filter(
            (r) => r.status === 'released' || r.status === 'expired',
          );
          if (each.do === 'setStock') shop.setStock(each.sku, each.onHand);
          else if (each.do === 'reserve') shop.reserve(each.order, each.lines);
          else if (each.do === 'wait') shop.now += each.ms;
          else shop[each.do](each.order);

          for (const one of shop.items.values()) {
            expect(addsUp(one)).toBe(true);
            expect(available(one) + one.reserved + one.sold).toBe(one.received);
            // The counters are what the reservations say.
            expect(one.reserved).toBe(shop.quantities('held', one.sku));
            expect(one.sold).toBe(shop.quantities('committed', one.sku));
          }
          for (const one of closed) expect(shop.reservations.get(one.orderId)).toBe(one);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
