import { createHmac, timingSafeEqual } from 'node:crypto';
import { fail } from '../http/errors.js';

export const SIGNATURE_HEADER = 'Banyan-Signature';

/** A signature older or newer than this is refused: a stolen request is only good for so long. */
const toleranceSeconds = 5 * 60;

const mac = (secret: string, timestamp: number, body: Uint8Array | string): Buffer =>
  createHmac('sha256', secret).update(`${timestamp}.`).update(body).digest();

/** The `Banyan-Signature` of a webhook: `t=<unix seconds>,v1=<hex HMAC-SHA-256 of "t.body">`. */
export function signWebhook(secret: string, body: Uint8Array | string, now: Date = new Date()): string {
  const timestamp = Math.floor(now.getTime() / 1000);
  return `t=${timestamp},v1=${mac(secret, timestamp, body).toString('hex')}`;
}

/**
 * Checks a webhook's signature over its raw bytes, in constant time. More than one `v1` may be given while a secret is
 * changed. Throws SIGNATURE_INVALID (401). Deliveries that come twice are the receiver's to notice, by event id.
 */
export function verifyWebhook(
  secret: string,
  header: string | undefined,
  body: Uint8Array | string | undefined,
  now: Date = new Date(),
): void {
  const parts = (header ?? '').split(',').map((part) => part.trim());
  const timestamp = /^t=(\d{1,12})$/.exec(parts.find((part) => part.startsWith('t=')) ?? '')?.[1];
  const given = parts.slice(0, 8).flatMap((part) => /^v1=([0-9a-f]{64})$/.exec(part)?.[1] ?? []);
  const refuse = (why: string) => fail('SIGNATURE_INVALID', `${SIGNATURE_HEADER} ${why}`);
  if (timestamp === undefined || given.length === 0) throw refuse('must be t=<unix seconds>,v1=<hex HMAC-SHA-256>');
  if (Math.abs(now.getTime() / 1000 - Number(timestamp)) > toleranceSeconds)
    throw refuse('is too old, or from the future');
  const expected = mac(secret, Number(timestamp), body ?? '');
  const holds = given.map((hex) => timingSafeEqual(Buffer.from(hex, 'hex'), expected)).includes(true);
  if (!holds) throw refuse('does not match the body');
}
