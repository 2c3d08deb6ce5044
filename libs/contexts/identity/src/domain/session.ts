/** A refresh token as it stands, with what its session says. */
export interface TokenState {
  usedAt: Date | null;
  expiresAt: Date;
  revokedAt: Date | null;
}

export type Rotation = 'rotate' | 'reused' | 'invalid';

/**
 * What presenting a refresh token comes to. A used token is in two hands, its owner's and a thief's, and nobody can
 * tell which is which: `reused` ends the whole session (RFC 9700, 4.14.2).
 */
export function decideRotation(token: TokenState | undefined, now: Date): Rotation {
  if (!token || token.revokedAt) return 'invalid';
  if (token.usedAt) return 'reused';
  return token.expiresAt <= now ? 'invalid' : 'rotate';
}

/** Expiry slides with each rotation, but never past the end of the session. */
export const cappedExpiry = (wanted: Date, endsAt: Date): Date => (wanted < endsAt ? wanted : endsAt);
