import { identity } from '@banyan/contracts';
import { type Client, clientToken } from '@banyan/messaging';
import { type ContextApp, contextApp, testDatabase } from '@banyan/testing';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { DemoAccounts, IdentityModule } from './index.js';
import { Passwords } from './identity.passwords.js';

const test = testDatabase({ contexts: ['identity'] });
const password = 'correct horse battery';

let shop: ContextApp;
const logged: unknown[] = [];

/** Keeps the lines as they are before redaction: nothing secret may even get that far. */
const note = (...line: unknown[]) => void logged.push(line);
const logger = { log: note, warn: note, error: note, debug: note, verbose: note, fatal: note };

beforeAll(async () => {
  shop = await contextApp({
    test,
    module: IdentityModule,
    contracts: [identity],
    settings: { BANYAN_SECRET: 'a secret for specs, thirty-two characters' },
    auth: {
      inject: [clientToken(identity)],
      keySource: (client: Client<typeof identity>) => () => client.jwks({}),
    },
    logger,
  });
});
afterAll(() => shop?.close());

const post = (path: string, body: object) => shop.request('POST', `/v1/auth/${path}`, { body });
const get = (path: string, token?: string) => shop.request('GET', path, { token });

let people = 0;
async function newUser() {
  const email = `user-${++people}@example.com`;
  const { status, body } = await post('register', { email, password, name: 'Ada' });
  expect(status).toBe(201);
  return { email, id: body.id as string };
}

async function signIn(email: string, word = password) {
  const { status, body } = await post('login', { email, password: word });
  expect(status).toBe(200);
  return body as { accessToken: string; refreshToken: string; tokenType: string; expiresIn: number };
}

describe('registering', () => {
  it('answers 201 with the user, and nothing of the password', async () => {
    const { status, body } = await post('register', { email: 'New.User@Example.com', password, name: ' Ada L. ' });
    expect(status).toBe(201);
    expect(body).toEqual({
      id: expect.any(String),
      email: 'new.user@example.com',
      name: 'Ada L.',
      roles: ['customer'],
      createdAt: expect.any(String),
    });
  });

  it('refuses an address that has an account, however it is written', async () => {
    const { email } = await newUser();
    const { status, body } = await post('register', { email: email.toUpperCase(), password, name: 'Eve' });
    expect(status).toBe(409);
    expect(body.code).toBe('EMAIL_TAKEN');
  });

  it.each([
    ['roles in the body', { roles: ['admin'] }, '/roles'],
    ['an id in the body', { id: '01990000-0000-7000-8000-000000000001' }, '/id'],
    ['a short password', { password: '1234567' }, '/password'],
    ['a long password', { password: 'x'.repeat(129) }, '/password'],
    ['an object for a text', { email: { not: '' } }, '/email'],
    ['no e-mail address', { email: 'nobody' }, '/email'],
    ['a control character', { name: 'A\u0007da' }, '/name'],
  ])('refuses %s with 400, and makes no account', async (_, fault, pointer) => {
    const before = await test.admin('SELECT count(*) FROM identity.user_account');
    const { status, body } = await post('register', { email: 'eve@example.com', password, name: 'Eve', ...fault });
    expect(status).toBe(400);
    expect(body.errors).toContainEqual(expect.objectContaining({ pointer }));
    expect(await test.admin('SELECT count(*) FROM identity.user_account')).toEqual(before);
  });

  it('refuses a lone surrogate before anything reads it', async () => {
    const { status, body } = await post('register', { email: 'eve@example.com', password, name: 'A\ud800da' });
    expect([status, body.code]).toEqual([400, 'MALFORMED_JSON']);
  });

  it('of many at once with one address, one wins', async () => {
    const body = { email: 'race@example.com', password, name: 'Ada' };
    const answers = await Promise.all(Array.from({ length: 8 }, () => post('register', body)));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(7).fill(409)]);
  });

  it('keeps an Argon2id hash with the promised cost', async () => {
    const { id } = await newUser();
    const [row] = await test.admin('SELECT password_hash FROM identity.credential WHERE user_id = $1', [id]);
    expect(row?.password_hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  });
});

describe('signing in', () => {
  it('gives a token that /v1/me takes', async () => {
    const { email, id } = await newUser();
    const tokens = await signIn(email.toUpperCase());
    expect(tokens).toMatchObject({ tokenType: 'Bearer', expiresIn: 900 });
    const me = await get('/v1/me', tokens.accessToken);
    expect(me.status).toBe(200);
    expect(me.body).toMatchObject({ id, email, roles: ['customer'] });

    const claims = decodeJwt(tokens.accessToken);
    expect(claims).toMatchObject({ sub: id, roles: ['customer'], iss: 'banyan', aud: 'banyan-api' });
    expect(claims.exp! - claims.iat!).toBeLessThanOrEqual(900);
    expect(decodeProtectedHeader(tokens.accessToken)).toMatchObject({ alg: 'ES256', typ: 'at+jwt' });
  });

  it('without a token, /v1/me is 401; a refresh token is none', async () => {
    const { email } = await newUser();
    const { refreshToken } = await signIn(email);
    expect((await get('/v1/me')).status).toBe(401);
    expect((await get('/v1/me', refreshToken)).status).toBe(401);
  });

  it('answers a wrong password and an unknown address alike, with one check of a hash each', async () => {
    const { email } = await newUser();
    const verify = vi.spyOn(shop.app.get(Passwords), 'verify');
    const wrong = await post('login', { email, password: 'not the password' });
    const unknown = await post('login', { email: 'unknown@example.com', password: 'not the password' });
    expect(verify.mock.calls.map(([hash]) => typeof hash)).toEqual(['string', 'undefined']);
    verify.mockRestore();
    expect(wrong.status).toBe(401);
    expect({ ...wrong.body, traceId: '' }).toEqual({ ...unknown.body, traceId: '' });
    expect(wrong.body.code).toBe('INVALID_CREDENTIALS');
  });

  it('stops guessing at one account with 429 and Retry-After, also for the right password', async () => {
    const { email } = await newUser();
    const guesses = await Promise.all(Array.from({ length: 12 }, () => post('login', { email, password: 'a guess' })));
    expect(guesses.filter(({ status }) => status === 401)).toHaveLength(10);
    const { status, headers } = await post('login', { email, password });
    expect(status).toBe(429);
    expect(Number(headers['retry-after'])).toBeGreaterThan(0);
  });
});

describe('refreshing', () => {
  it('swaps the token for the next one', async () => {
    const first = await signIn((await newUser()).email);
    const second = await post('refresh', { refreshToken: first.refreshToken });
    expect(second.status).toBe(200);
    expect(second.headers['cache-control']).toBe('no-store');
    expect(second.body.refreshToken).not.toBe(first.refreshToken);
    expect((await get('/v1/me', second.body.accessToken)).status).toBe(200);
    expect((await post('refresh', { refreshToken: second.body.refreshToken })).status).toBe(200);
  });

  it('a token used twice ends its session, and only that one', async () => {
    const { email } = await newUser();
    const first = await signIn(email);
    const other = await signIn(email);
    const second = await post('refresh', { refreshToken: first.refreshToken });
    const again = await post('refresh', { refreshToken: first.refreshToken });
    expect(again.status).toBe(401);
    expect(again.body.code).toBe('INVALID_REFRESH_TOKEN');
    expect((await post('refresh', { refreshToken: second.body.refreshToken })).status).toBe(401);
    expect((await post('refresh', { refreshToken: other.refreshToken })).status).toBe(200);
  });

  it('of many at once with one token, exactly one wins', async () => {
    const { email, id } = await newUser();
    const { refreshToken } = await signIn(email);
    const answers = await Promise.all(Array.from({ length: 10 }, () => post('refresh', { refreshToken })));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, ...Array(9).fill(401)]);
    const tokens = await test.admin(
      'SELECT used_at FROM identity.refresh_token WHERE session_id IN (SELECT id FROM identity.session WHERE user_id = $1)',
      [id],
    );
    expect(tokens).toHaveLength(2);
  });

  it('refuses an expired token, an unknown one and an access token', async () => {
    const { email, id } = await newUser();
    const tokens = await signIn(email);
    await test.admin(
      `UPDATE identity.refresh_token SET expires_at = now() - interval '1 minute'
       WHERE session_id IN (SELECT id FROM identity.session WHERE user_id = $1)`,
      [id],
    );
    for (const refreshToken of [tokens.refreshToken, 'unknown', tokens.accessToken])
      expect((await post('refresh', { refreshToken })).status).toBe(401);
  });
});

describe('signing out', () => {
  it('ends the session; twice or with an unknown token it is 204 as well', async () => {
    const { refreshToken } = await signIn((await newUser()).email);
    expect((await post('logout', { refreshToken })).status).toBe(204);
    expect((await post('refresh', { refreshToken })).status).toBe(401);
    expect((await post('logout', { refreshToken })).status).toBe(204);
    expect((await post('logout', { refreshToken: 'unknown' })).status).toBe(204);
  });
});

describe('the key set', () => {
  it('is public, may be cached, and holds no private part', async () => {
    const { status, headers, body } = await get('/.well-known/jwks.json');
    expect(status).toBe(200);
    expect(headers['cache-control']).toBe('public, max-age=300');
    expect(body.keys).toHaveLength(1);
    expect(Object.keys(body.keys[0]).sort()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y']);
  });
});

describe('the demo accounts', () => {
  it('are made once, with their roles', async () => {
    const demo = shop.app.get(DemoAccounts);
    await Promise.all([demo.seed(), demo.seed()]);
    await demo.seed();
    for (const [name, role] of [
      ['customer', 'customer'],
      ['staff', 'staff'],
      ['admin', 'admin'],
    ]) {
      const { accessToken } = await signIn(`${name}@example.com`, 'banyan-demo');
      expect((await get('/v1/me', accessToken)).body.roles).toContain(role);
    }
  });
});

it('has logged no address, password or token, and stored no token', async () => {
  const email = 'secretive@example.com';
  await post('register', { email, password: 'hunter2 hunter2', name: 'Grace Hopper' });
  const first = await signIn(email, 'hunter2 hunter2');
  const { body: second } = await post('refresh', { refreshToken: first.refreshToken });
  await post('refresh', { refreshToken: first.refreshToken });
  await post('login', { email, password: 'wrong wrong' });

  const text = JSON.stringify(logged, (_, value: unknown) => (value instanceof Error ? String(value.stack) : value));
  expect(text).toContain('used twice');
  const secrets = [
    'hunter2',
    'wrong wrong',
    'Grace',
    email,
    first.accessToken,
    first.refreshToken,
    second.refreshToken,
  ];
  for (const secret of secrets) expect(text).not.toContain(secret);

  const tables = ['user_account', 'credential', 'session', 'refresh_token', 'outbox', 'idempotency_key', 'signing_key'];
  for (const table of tables) {
    const rows = JSON.stringify(await test.admin(`SELECT * FROM identity.${table}`));
    for (const secret of ['hunter2', first.refreshToken, second.refreshToken]) expect(rows).not.toContain(secret);
  }
});
