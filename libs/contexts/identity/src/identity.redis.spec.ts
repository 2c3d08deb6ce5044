import { identity } from '@banyan/contracts';
import { type Client, clientToken } from '@banyan/messaging';
import { keptKeys } from '@banyan/platform/auth';
import { Cache } from '@banyan/platform/cache';
import { type ContextApp, type ServerProcess, contextApp, eventually, startRedis, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { IdentityModule } from './identity.module.js';

/* Two instances on one database and one Redis. */
const test = testDatabase({ contexts: ['identity'] });

let redis: ServerProcess;
let shops: ContextApp[];

beforeAll(async () => {
  redis = await startRedis();
  const open = () =>
    contextApp({
      test,
      module: IdentityModule,
      contracts: [identity],
      settings: { REDIS_URL: redis.url, BANYAN_SECRET: 'a secret that both instances have in common' },
      auth: {
        inject: [clientToken(identity), Cache],
        keySource: (client: Client<typeof identity>, cache: Cache) => keptKeys(cache, () => client.jwks({})),
      },
    });
  shops = [await open(), await open()];
});
afterAll(async () => {
  await Promise.all((shops ?? []).map((shop) => shop.close()));
  await redis?.stop();
});

const patient = { timeoutMs: 20_000 };
const password = 'correct horse battery';
const login = (shop: ContextApp, email: string, guess = password) =>
  shop.request('POST', '/v1/auth/login', { body: { email, password: guess } });
const register = (shop: ContextApp, email: string) =>
  shop.request('POST', '/v1/auth/register', { body: { email, password, name: 'Ann' } });

it('guesses at one account run out for all instances together', async () => {
  let accounts = 0;
  const statuses = await eventually(async () => {
    const email = `guessed-${++accounts}@example.com`;
    await register(shops[0]!, email);
    const all: number[] = [];
    for (let n = 0; n < 14; n++) all.push((await login(shops[n % 2]!, email, 'wrong')).status);
    // Where Redis is not on time nobody can tell whether that guess was counted.
    return !all.includes(503) && all;
  }, patient);
  expect(statuses).toEqual([...Array(10).fill(401), ...Array(4).fill(429)]);
});

it('while Redis is away nobody can sign in; who has signed in stays so, and the rest is open', async () => {
  const [shop] = shops as [ContextApp];
  await register(shop, 'ann@example.com');
  const { body: tokens } = await eventually(async () => {
    const answer = await login(shop, 'ann@example.com');
    return answer.status === 200 && answer;
  }, patient);
  await redis.kill();
  const refused = await eventually(async () => {
    const answer = await login(shop, 'ann@example.com');
    return answer.status === 503 && answer;
  }, patient);
  expect(refused.headers['retry-after']).toBe('2');
  expect(refused.body).toMatchObject({ code: 'UPSTREAM_UNAVAILABLE', status: 503 });
  expect((await register(shop, 'bob@example.com')).status).toBe(201);
  const refreshed = await shop.request('POST', '/v1/auth/refresh', { body: { refreshToken: tokens.refreshToken } });
  expect(refreshed.status).toBe(200);
  expect((await shop.request('GET', '/v1/me', { token: refreshed.body.accessToken })).status).toBe(200);
  expect((await shop.request('GET', '/.well-known/jwks.json')).status).toBe(200);
  await redis.restart();
  await eventually(async () => (await login(shop, 'ann@example.com')).status === 200, patient);
});
