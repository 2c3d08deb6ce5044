import { describe, expect, it } from 'vitest';
import { commit, expire, release, reserve, tombstone, type Reservation } from './reservation.js';

const now = new Date('2026-03-01T12:00:00Z');
const later = new Date('2026-03-01T12:15:00Z');
const asked = { orderId: 'o1', lines: [{ sku: 'MUG', quantity: 2 }], expiresAt: later };
const given = (status: Reservation['status']): Reservation => ({ ...asked, status });
const unchanged = { outcome: 'unchanged' };
const closed = { outcome: 'refused', why: 'closed' };

describe('reserve', () => {
  it('given nothing, then the goods are held', () => {
    expect(reserve(undefined, asked)).toEqual({ outcome: 'change', to: given('held'), movement: 'hold' });
  });
  it.each(['held', 'committed'] as const)('given it is %s already, then nothing changes', (status) => {
    expect(reserve(given(status), asked)).toEqual(unchanged);
  });
  it.each(['released', 'expired'] as const)('given it was %s, then it is refused', (status) => {
    expect(reserve(given(status), asked)).toEqual(closed);
  });
  it('given the order was released before it reserved, then it is refused', () => {
    expect(reserve(tombstone('o1', now), asked)).toEqual(closed);
  });
});

describe('commit', () => {
  it('given a hold, then the goods are sold', () => {
    expect(commit(given('held'))).toEqual({ outcome: 'change', to: given('committed'), movement: 'sell' });
  });
  it('given it is committed, then nothing changes', () => expect(commit(given('committed'))).toEqual(unchanged));
  it('given nothing, then it is unknown', () =>
    expect(commit(undefined)).toEqual({ outcome: 'refused', why: 'unknown' }));
  it.each(['released', 'expired'] as const)('given it was %s, then it is refused', (status) => {
    expect(commit(given(status))).toEqual(closed);
  });
});

describe('release', () => {
  it('given a hold, then the goods are available again', () => {
    expect(release(given('held'))).toEqual({ outcome: 'change', to: given('released'), movement: 'unhold' });
  });
  it('given sold goods, then they come back', () => {
    expect(release(given('committed'))).toEqual({ outcome: 'change', to: given('released'), movement: 'takeBack' });
  });
  it.each(['released', 'expired'] as const)('given it was %s, then nothing changes', (status) => {
    expect(release(given(status))).toEqual(unchanged);
  });
});

describe('expire', () => {
  it('given a hold whose time is up, then the goods are available again', () => {
    expect(expire(given('held'), later)).toEqual({ outcome: 'change', to: given('expired'), movement: 'unhold' });
  });
  it('given a hold with time left, then nothing changes', () => expect(expire(given('held'), now)).toEqual(unchanged));
  it.each(['committed', 'released', 'expired'] as const)('given it is %s, then nothing changes', (status) => {
    expect(expire(given(status), later)).toEqual(unchanged);
  });
  it('given nothing, then nothing changes', () => expect(expire(undefined, later)).toEqual(unchanged));
});
