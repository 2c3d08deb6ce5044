import * as argon2 from '@node-rs/argon2';
import { loadConfig } from '@banyan/platform/config';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { Passwords } from './identity.passwords.js';

// The real library; the spy only counts.
vi.mock('@node-rs/argon2', async (original) => {
  const real = await original<typeof argon2>();
  return { ...real, verify: vi.fn(real.verify) };
});
const verify = vi.mocked(argon2.verify);

const passwordsWith = async (env: Record<string, string>) => {
  const passwords = new Passwords(loadConfig(env));
  await passwords.onModuleInit();
  return passwords;
};

describe('passwords', () => {
  let passwords: Passwords;
  let hash: string;
  beforeAll(async () => {
    passwords = await passwordsWith({});
    hash = await passwords.hash('correct horse');
  });

  it('knows the right one from a wrong one', async () => {
    expect(await passwords.verify(hash, 'correct horse')).toBe(true);
    expect(await passwords.verify(hash, 'correct horsf')).toBe(false);
  });

  it('takes one password however a keyboard composes it', async () => {
    const composed = await passwords.hash('caf\u00e9 au lait');
    expect(await passwords.verify(composed, 'cafe\u0301 au lait')).toBe(true);
  });

  it('without a hash checks a dummy of the same cost, and says no', async () => {
    verify.mockClear();
    expect(await passwords.verify(undefined, 'correct horse')).toBe(false);
    expect(verify).toHaveBeenCalledOnce();
    const cost = (encoded: string) => argon2.parseOptions(encoded);
    expect(cost(verify.mock.calls[0]![0] as string)).toEqual(cost(hash));
  });

  it('hashes few at once, queues some, and refuses the rest with a time to come back', async () => {
    const narrow = await passwordsWith({ BANYAN_PASSWORD_HASHES_AT_ONCE: '1', BANYAN_PASSWORD_HASHES_WAITING: '2' });
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => narrow.verify(hash, 'correct horse')));
    const refused = results.filter((result) => result.status === 'rejected');
    expect(refused).toHaveLength(2);
    expect(refused[0]?.reason).toMatchObject({ kind: 'unavailable', data: { retryAfterMs: 1_000 } });
    expect(await narrow.verify(hash, 'correct horse')).toBe(true);
  });

  it('may cost more, never less', async () => {
    const dear = await passwordsWith({ BANYAN_PASSWORD_MEMORY_KIB: '20480', BANYAN_PASSWORD_PASSES: '3' });
    expect(await dear.hash('correct horse')).toContain('$m=20480,t=3,p=1$');
    expect(() => loadConfig({ BANYAN_PASSWORD_MEMORY_KIB: '1024' })).toThrow(/BANYAN_PASSWORD_MEMORY_KIB/);
  });
});
