import { describe, expect, it } from 'vitest';
import { seal, unseal } from './identity.sealing.js';

const secret = 'a secret of at least thirty-two characters';

describe('sealing', () => {
  it('opens with the same secret and name', () => {
    expect(unseal(seal('{"d":"…"}', 'kid-1', secret), 'kid-1', secret)).toBe('{"d":"…"}');
  });

  it('shows nothing of the text and never looks the same twice', () => {
    const sealed = seal('private', 'kid-1', secret);
    expect(sealed).not.toContain('private');
    expect(sealed).not.toContain(Buffer.from('private').toString('base64url'));
    expect(seal('private', 'kid-1', secret)).not.toBe(sealed);
  });

  it('stays shut with another secret, under another name, or when changed', () => {
    const sealed = seal('private', 'kid-1', secret);
    expect(unseal(sealed, 'kid-1', `${secret}!`)).toBeUndefined();
    expect(unseal(sealed, 'kid-2', secret)).toBeUndefined();
    const last = sealed.at(-2) === 'A' ? 'B' : 'A';
    expect(unseal(sealed.slice(0, -2) + last + sealed.at(-1), 'kid-1', secret)).toBeUndefined();
    expect(unseal('v1.AA.AA', 'kid-1', secret)).toBeUndefined();
    expect(unseal('', 'kid-1', secret)).toBeUndefined();
  });
});
