import { createHmac, hash, timingSafeEqual } from 'node:crypto';
import { type Config, keptSecret } from '../config/index.js';

/** What the processes of one system show to each other: derived from the secret that they share. */
export function rpcToken(config: Config): string {
  const secret = config.auth.secret ?? keptSecret(config.stateDir, 'signing-secret');
  return createHmac('sha256', secret).update('rpc').digest('base64url');
}

/** Compares in a time that tells nothing about where they differ. */
export function sameToken(expected: string, given: unknown): boolean {
  if (typeof given !== 'string') return false;
  return timingSafeEqual(hash('sha256', expected, 'buffer'), hash('sha256', given, 'buffer'));
}
