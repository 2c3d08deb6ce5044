import { createHmac } from 'node:crypto';
import { Controller, Get, Module, Post } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Actor } from '@banyan/kernel';
import { type JWK, SignJWT, UnsecuredJWT, base64url, exportJWK, generateKeyPair, importJWK } from 'jose';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { loadConfig } from '../config/index.js';
import { Answers, createHttpApp } from '../http/index.js';
import { AccessTokens, AuthModule, CurrentActor, Public, Roles, TokenSigner } from './index.js';

@Controller()
class DoorsController {
  @Get('open')
  @Public()
  @Answers(200)
  open(@CurrentActor() actor: Actor) {
    return actor;
  }
  @Get('any')
  @Answers(200)
  any(@CurrentActor() actor: Actor) {
    return actor;
  }
  @Get('staff')
  @Roles('staff')
  @Answers(200)
  staff() {
    return {};
  }
  @Post('admin')
  @Roles('admin')
  @Answers(200)
  admin() {
    return {};
  }
}

@Controller('shut')
@Roles('staff')
class ShutController {
  @Get()
  @Answers(200)
  shut() {
    return {};
  }
}

async function keyPair(kid: string, alg = 'ES256') {
  const pair = await generateKeyPair(alg, { extractable: true });
  return {
    privateJwk: { ...(await exportJWK(pair.privateKey)), kid, alg } as JWK,
    publicJwk: { ...(await exportJWK(pair.publicKey)), kid, alg, use: 'sig' } as JWK,
  };
}

const id = '0199d0a0-0000-7000-8000-000000000001';
const settings = { issuer: 'banyan', audience: 'banyan-api', accessTokenSeconds: 900 };
const signer = new TokenSigner(settings);
const ours = await keyPair('k1');
const stranger = await keyPair('k1');
const seconds = () => Math.floor(Date.now() / 1000);

let app: NestFastifyApplication;
let base: string;
let published: JWK[] = [ours.publicJwk];

@Module({
  imports: [AuthModule.with({ keySource: () => async () => ({ keys: published }) })],
  controllers: [DoorsController, ShutController],
})
class DoorsModule {}

beforeAll(async () => {
  app = await createHttpApp(DoorsModule, loadConfig({}), { logger: false });
  await app.listen(0, '127.0.0.1');
  base = await app.getUrl();
});
afterAll(() => app.close());

const call = async (path: string, token?: string, method = 'GET') => {
  const response = await fetch(base + path, {
    method,
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
  });
  return {
    status: response.status,
    body: (await response.json()) as Record<string, unknown>,
    headers: response.headers,
  };
};

/** A token that would be good but for what `change` makes of it. */
async function forged(
  change: { header?: Record<string, unknown>; claims?: Record<string, unknown>; key?: JWK; alg?: string } = {},
): Promise<string> {
  const { header = {}, claims = {}, key = ours.privateJwk, alg = 'ES256' } = change;
  return new SignJWT({ ...goodClaims(), ...claims })
    .setProtectedHeader({ alg, typ: 'at+jwt', kid: 'k1', ...header })
    .sign(await importJWK(key, alg));
}

const part = (value: unknown) => base64url.encode(JSON.stringify(value));
const goodClaims = () => ({
  sub: id,
  roles: ['admin'],
  iss: 'banyan',
  aud: 'banyan-api',
  iat: seconds(),
  exp: seconds() + 900,
});
const publicBytes = () => Buffer.from(JSON.stringify(ours.publicJwk));
const hs256 = (claims: object) => {
  const text = `${part({ alg: 'HS256', typ: 'at+jwt', kid: 'k1' })}.${part(claims)}`;
  return `${text}.${createHmac('sha256', publicBytes()).update(text).digest('base64url')}`;
};
const tampered = async () => {
  const [header, , signature] = (await forged({ claims: { roles: ['customer'] } })).split('.');
  return `${header}.${part(goodClaims())}.${signature}`;
};
const es384 = await keyPair('k1', 'ES384');

describe('forged tokens get 401', () => {
  it('the token the forgeries start from is good', async () => {
    expect((await call('/any', await forged())).status).toBe(200);
  });
  it.each<[string, () => Promise<string> | string]>([
    ['alg none', () => new UnsecuredJWT(goodClaims()).encode()],
    ['alg none, dressed up', () => `${part({ alg: 'none', typ: 'at+jwt', kid: 'k1' })}.${part(goodClaims())}.`],
    ['HS256 with the public key as the secret', () => hs256(goodClaims())],
    ['a key id that nobody published', () => forged({ header: { kid: 'k9' } })],
    ['no key id', () => forged({ header: { kid: undefined } })],
    ['our key id, a stranger’s key', () => forged({ key: stranger.privateJwk })],
    ['another issuer', () => forged({ claims: { iss: 'someone' } })],
    ['another audience', () => forged({ claims: { aud: 'another-api' } })],
    ['expired', () => forged({ claims: { iat: seconds() - 1000, exp: seconds() - 60 } })],
    ['never expiring', () => forged({ claims: { exp: undefined } })],
    ['of no known age', () => forged({ claims: { iat: undefined } })],
    ['not valid yet', () => forged({ claims: { nbf: seconds() + 60 } })],
    ['a refresh token', () => forged({ header: { typ: 'rt+jwt' } })],
    ['a plain JWT', () => forged({ header: { typ: 'JWT' } })],
    [
      'jku pointing at a stranger’s keys',
      () => forged({ key: stranger.privateJwk, header: { jku: 'https://evil.example/jwks' } }),
    ],
    [
      'the stranger’s key inside',
      () => forged({ key: stranger.privateJwk, header: { jwk: stranger.publicJwk, kid: 'k9' } }),
    ],
    [
      'x5u and x5c of a stranger',
      () => forged({ key: stranger.privateJwk, header: { x5u: 'https://evil.example/c.pem', x5c: ['AAAA'] } }),
    ],
    ['a truncated signature', async () => (await forged()).slice(0, -8)],
    ['an empty signature', async () => (await forged()).replace(/[^.]+$/, '')],
    ['a zero signature', async () => (await forged()).replace(/[^.]+$/, base64url.encode(new Uint8Array(64)))],
    ['a key on another curve', () => forged({ key: es384.privateJwk, alg: 'ES384' })],
    [
      'another curve’s algorithm named',
      () =>
        forged({ header: { alg: 'ES256K' } }).catch(
          () =>
            `${part({ alg: 'ES256K', typ: 'at+jwt', kid: 'k1' })}.${part(goodClaims())}.${base64url.encode(new Uint8Array(64))}`,
        ),
    ],
    ['tampered claims', tampered],
    ['a subject that is no user', () => forged({ claims: { sub: 'root' } })],
    ['roles that do not exist', () => forged({ claims: { roles: ['root'] } })],
    ['empty', () => ''],
    ['not a token', () => 'abc'],
    [
      'an unknown critical header',
      () =>
        forged({ header: { crit: ['x'], x: 1 } }).catch(
          () => `${part({ alg: 'ES256', typ: 'at+jwt', kid: 'k1', crit: ['x'], x: 1 })}.${part(goodClaims())}.AAAA`,
        ),
    ],
  ])('%s', async (_, make) => {
    const { status, body, headers } = await call('/any', await make());
    expect({ status, code: body['code'], ask: headers.get('www-authenticate') }).toEqual({
      status: 401,
      code: 'UNAUTHENTICATED',
      ask: 'Bearer',
    });
    // On a public route it is worth no more than no token.
    expect((await call('/open', await make())).body).toEqual({ kind: 'anonymous' });
  });
  it.each(['Basic YTpi', 'Bearer', 'bearer  ', 'Bearer a b', 'Token x'])('Authorization: %s', async (authorization) => {
    expect((await fetch(`${base}/any`, { headers: { authorization } })).status).toBe(401);
  });
});

describe('access', () => {
  const tokenFor = (...roles: ('customer' | 'staff' | 'admin')[]) => signer.sign({ id, roles }, ours.privateJwk);

  it('is denied by default', async () => {
    expect((await call('/any')).status).toBe(401);
    expect((await call('/shut')).status).toBe(401);
  });
  it('is open where a handler says so, and knows the user if there is one', async () => {
    expect((await call('/open')).body).toEqual({ kind: 'anonymous' });
    expect((await call('/open', await tokenFor('customer'))).body).toEqual({ kind: 'user', id, roles: ['customer'] });
  });
  it.each<[string, string, ('customer' | 'staff' | 'admin')[], number]>([
    ['GET', '/any', ['customer'], 200],
    ['GET', '/staff', ['customer'], 403],
    ['GET', '/staff', [], 403],
    ['GET', '/staff', ['staff'], 200],
    ['GET', '/staff', ['admin'], 200],
    ['POST', '/admin', ['staff'], 403],
    ['POST', '/admin', ['admin'], 200],
    ['GET', '/shut', ['customer'], 403],
    ['GET', '/shut', ['staff'], 200],
  ])('%s %s as %j: %i', async (method, path, roles, status) => {
    expect((await call(path, await tokenFor(...roles), method)).status).toBe(status);
  });
  it.each(['/%61ny', '//any', '/any/', '/ANY', '/any?x=1', '/./any'])(
    'no other spelling of a path gets past: %s',
    async (path) => {
      const response = await fetch(base + path);
      expect([401, 404]).toContain(response.status);
    },
  );
  it('a HEAD is guarded like its GET', async () => {
    expect((await fetch(`${base}/any`, { method: 'HEAD' })).status).toBe(401);
  });
});

describe('keys', () => {
  let now = new Date();
  let asked = 0;
  let fails = false;
  const verifier = () =>
    new AccessTokens(
      async () => {
        asked += 1;
        if (fails) throw new Error('down');
        return { keys: published };
      },
      { ...settings, now: () => now },
    );
  const tokenOf = (key: JWK) => signer.sign({ id, roles: ['customer'] }, key, now);
  const later = (ms: number) => (now = new Date(now.getTime() + ms));

  beforeEach(() => {
    now = new Date();
    asked = 0;
    fails = false;
    published = [ours.publicJwk];
  });

  it('are asked for once, however many tokens come at once', async () => {
    const tokens = verifier();
    const token = await tokenOf(ours.privateJwk);
    await Promise.all(Array.from({ length: 50 }, () => tokens.verify(token)));
    expect(asked).toBe(1);
  });
  it('an unknown one asks again, but not for every forgery', async () => {
    const tokens = verifier();
    await tokens.verify(await tokenOf(ours.privateJwk));
    const next = await keyPair('k2');
    published = [ours.publicJwk, next.publicJwk];
    await expect(tokens.verify(await tokenOf(next.privateJwk))).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    later(10_001);
    await expect(tokens.verify(await tokenOf(next.privateJwk))).resolves.toMatchObject({ id });
    expect(asked).toBe(2);
    const strange = await tokenOf((await keyPair('k3')).privateJwk);
    for (let n = 0; n < 20; n++)
      await expect(tokens.verify(strange)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    expect(asked).toBe(2);
  });
  it('a withdrawn one stops working, also for tokens seen before', async () => {
    const tokens = verifier();
    const token = await tokenOf(ours.privateJwk);
    await tokens.verify(token);
    const next = await keyPair('k2');
    published = [next.publicJwk];
    later(10_001);
    await tokens.verify(await tokenOf(next.privateJwk));
    await expect(tokens.verify(token)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });
  it('known ones outlive their source; without any the answer is 503', async () => {
    const tokens = verifier();
    await tokens.verify(await tokenOf(ours.privateJwk));
    fails = true;
    later(6 * 60_000);
    await expect(tokens.verify(await tokenOf(ours.privateJwk))).resolves.toMatchObject({ id });
    const keyless = verifier();
    for (let n = 0; n < 5; n++)
      await expect(keyless.verify(await tokenOf(ours.privateJwk))).rejects.toMatchObject({ kind: 'unavailable' });
    expect(asked).toBe(3);
    fails = false;
    later(501);
    await expect(keyless.verify(await tokenOf(ours.privateJwk))).resolves.toMatchObject({ id });
  });
  it('a token seen before still expires', async () => {
    const tokens = verifier();
    const token = await tokenOf(ours.privateJwk);
    later(890_000);
    await tokens.verify(token);
    later(16_000);
    await expect(tokens.verify(token)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });
});
