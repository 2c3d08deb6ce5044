import { DomainError } from '@banyan/kernel';
import { type ServerProcess, eventually, startRedis } from '@banyan/testing';
import { type JWK, exportJWK, generateKeyPair } from 'jose';
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished } from 'vitest';
import { type Cache, RedisCache } from '../cache/index.js';
import { PatientLink, withLongLeases } from '../redis/patient-link.spec-support.js';
import { AccessTokens, KEY_SET, TokenSigner, keptKeys } from './index.js';

let redis: ServerProcess;
beforeAll(async () => {
  redis = await startRedis();
});
afterAll(() => redis?.stop());

async function keyPair(kid: string) {
  const pair = await generateKeyPair('ES256', { extractable: true });
  const common = { kid, alg: 'ES256' };
  return {
    privateJwk: { ...(await exportJWK(pair.privateKey)), ...common } as JWK,
    publicJwk: { ...(await exportJWK(pair.publicKey)), ...common } as JWK,
  };
}
const settings = { issuer: 'banyan', audience: 'banyan-api', accessTokenSeconds: 900 };
const signer = new TokenSigner(settings);
const user = { id: '0199d0a0-0000-7000-8000-000000000001', roles: [] };
const ours = await keyPair('k1');
const tokenOf = (key: JWK) => signer.sign(user, key);

/* What identity publishes, and is asked. */
let published: JWK[];
let asked: number;
let away: boolean;
beforeEach(async () => {
  await redis.restart({ emptied: true });
  [published, asked, away] = [[ours.publicJwk], 0, false];
});

/** One process, new. `cooldownMs`: here every unknown key asks. */
async function start(): Promise<{ tokens: AccessTokens; cache: Cache; kept: () => Promise<true> }> {
  const link = new PatientLink(redis.url);
  await link.start();
  const cache = new RedisCache(link);
  withLongLeases(link);
  onTestFinished(() => (cache.close(), link.close()));
  let loads = 0;
  const probe = { key: `probe-${Math.random()}`, freshMs: 60_000, staleMs: 0 };
  await eventually(async () => {
    loads = 0;
    for (let n = 0; n < 2; n++) await cache.through(probe, async () => ++loads);
    return loads === 0;
  });
  const source = keptKeys(cache, async () => {
    asked += 1;
    if (away) throw new DomainError('UPSTREAM_UNAVAILABLE', 'unavailable', 'away');
    return { keys: published };
  });
  /** Resolves when the key set is in Redis: that is a moment after it was asked for. */
  const kept = () => eventually(async () => (await link.commands.exists(`banyan:cache:value:${KEY_SET.key}`)) === 1);
  return { tokens: new AccessTokens(source, { ...settings, cooldownMs: 0 }), cache, kept };
}

it('one process asks for all, also for those that start later', async () => {
  const [one, two] = [await start(), await start()];
  await one.tokens.verify(await tokenOf(ours.privateJwk));
  await one.kept();
  await two.tokens.verify(await tokenOf(ours.privateJwk));
  await (await start()).tokens.verify(await tokenOf(ours.privateJwk));
  expect(asked).toBe(1);
});

it('a key that nobody has published costs a question, and nothing that is kept', async () => {
  const one = await start();
  await one.tokens.verify(await tokenOf(ours.privateJwk));
  await one.kept();
  const strange = await tokenOf((await keyPair('nobody knows it')).privateJwk);
  for (const identityIsAway of [false, true]) {
    away = identityIsAway;
    await expect(one.tokens.verify(strange)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    await expect((await start()).tokens.verify(strange)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  }
  expect(asked).toBeGreaterThan(1);
  // Who starts now, while identity is away, has all it needs.
  const { tokens } = await start();
  await expect(tokens.verify(strange)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  await expect(tokens.verify(await tokenOf(ours.privateJwk))).resolves.toMatchObject({ id: user.id });
});

it('a key that has just been published is known at once, and then to all', async () => {
  const [one, two] = [await start(), await start()];
  await one.tokens.verify(await tokenOf(ours.privateJwk));
  const next = await keyPair('k2');
  published = [ours.publicJwk, next.publicJwk];
  await expect(one.tokens.verify(await tokenOf(next.privateJwk))).resolves.toMatchObject({ id: user.id });
  const all = await two.cache.through(KEY_SET, async () => ({ keys: published }));
  expect(all.keys.map(({ kid }) => kid)).toEqual(['k1', 'k2']);
});
