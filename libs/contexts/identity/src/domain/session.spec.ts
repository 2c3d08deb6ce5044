import { describe, expect, it } from 'vitest';
import { cappedExpiry, decideRotation } from './session.js';

const now = new Date('2026-01-01T12:00:00.000Z');
const earlier = new Date('2026-01-01T11:00:00.000Z');
const later = new Date('2026-01-01T13:00:00.000Z');

describe('presenting a refresh token', () => {
  const fresh = { usedAt: null, revokedAt: null, expiresAt: later };

  it.each([
    ['given a fresh token, it rotates', fresh, 'rotate'],
    ['given a used token, it is reuse', { ...fresh, usedAt: earlier }, 'reused'],
    [
      'given a used token that has expired since, it is still reuse',
      { ...fresh, usedAt: earlier, expiresAt: earlier },
      'reused',
    ],
    ['given an expired token, it is invalid', { ...fresh, expiresAt: earlier }, 'invalid'],
    ['given a token that expires this instant, it is invalid', { ...fresh, expiresAt: now }, 'invalid'],
    ['given a revoked session, it is invalid', { ...fresh, revokedAt: earlier }, 'invalid'],
    [
      'given a revoked session and a used token, there is nothing left to revoke',
      { usedAt: earlier, revokedAt: earlier, expiresAt: later },
      'invalid',
    ],
    ['given no such token, it is invalid', undefined, 'invalid'],
  ] as const)('%s', (_, token, expected) => {
    expect(decideRotation(token, now)).toBe(expected);
  });

  it('slides the expiry only up to the end of the session', () => {
    expect(cappedExpiry(now, later)).toBe(now);
    expect(cappedExpiry(later, now)).toBe(now);
  });
});
