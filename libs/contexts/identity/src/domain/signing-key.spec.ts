import { describe, expect, it } from 'vitest';
import { isDue, leadMs, newestKey, signingKeyAt, succession } from './signing-key.js';

const at = (minutes: number) => new Date(Date.UTC(2026, 0, 1) + minutes * 60_000);
const key = (kid: string, signFrom: number, publishUntil: number | null) => ({
  kid,
  createdAt: at(signFrom - 10),
  signFrom: at(signFrom),
  publishUntil: publishUntil === null ? null : at(publishUntil),
});

describe('signing keys', () => {
  it('given no key, none signs', () => {
    expect(signingKeyAt([], at(0))).toBeUndefined();
    expect(newestKey([])).toBeUndefined();
  });

  it('given a new key that is only published yet, the old one signs until the new one may', () => {
    const keys = [key('new', 20, null), key('old', 0, 60)];
    expect(signingKeyAt(keys, at(19))?.kid).toBe('old');
    expect(signingKeyAt(keys, at(20))?.kid).toBe('new');
    expect(newestKey(keys)?.kid).toBe('new');
  });

  it('given no key before it, the first signs at once', () => {
    expect(succession(undefined, 900, at(0)).signFrom).toEqual(at(0));
  });

  it('keeps the old key published until its last token has expired', () => {
    const { signFrom, publishUntil } = succession(key('old', 0, null), 900, at(100));
    expect(signFrom.getTime() - at(100).getTime()).toBe(leadMs);
    expect(publishUntil.getTime()).toBeGreaterThan(signFrom.getTime() + 900_000);
  });

  it('is due when its lifetime has passed', () => {
    expect(isDue(key('k', 10, null), 60, at(0.99))).toBe(false);
    expect(isDue(key('k', 10, null), 60, at(1))).toBe(true);
  });
});
