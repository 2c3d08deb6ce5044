import { describe, expect, it } from 'vitest';
import { signWebhook, verifyWebhook } from './index.js';

const secret = 'a-secret-of-the-provider';
const body = Buffer.from('{"id":"evt_1"}');
const now = new Date('2026-01-01T12:00:00Z');
const signature = signWebhook(secret, body, now);
const after = (seconds: number) => new Date(now.getTime() + seconds * 1000);

describe('a webhook signature', () => {
  it('holds for the same bytes within five minutes, both ways', () => {
    for (const seconds of [0, 299, -299])
      expect(() => verifyWebhook(secret, signature, body, after(seconds))).not.toThrow();
  });
  it('holds when one of several matches, as while a secret is changed', () => {
    const other = signWebhook('the-secret-from-before', body, now);
    expect(() => verifyWebhook(secret, `${other},${signature.split(',')[1]}`, body, now)).not.toThrow();
  });
  it.each<[string, string | undefined, Buffer, Date]>([
    ['other bytes', signature, Buffer.from('{"id":"evt_2"}'), now],
    ['too old', signature, body, after(301)],
    ['from the future', signature, body, after(-301)],
    ['a moved timestamp', signature.replace(/^t=\d+/, `t=${Math.floor(after(60).getTime() / 1000)}`), body, now],
    ['another secret', signWebhook('another-secret-entirely', body, now), body, now],
    ['missing', undefined, body, now],
    ['empty', '', body, now],
    ['no mac', 't=1767268800', body, now],
    ['a short mac', 't=1767268800,v1=abcd', body, now],
    ['another scheme', signature.replace('v1', 'v0'), body, now],
  ])('does not hold: %s', (_, header, bytes, at) => {
    expect(() => verifyWebhook(secret, header, bytes, at)).toThrow(
      expect.objectContaining({ code: 'SIGNATURE_INVALID' }),
    );
  });
});
