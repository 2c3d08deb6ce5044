import { request as httpRequest } from 'node:http';
import { newId } from '@banyan/kernel';
import { routesOf } from '@banyan/platform/http';
import { SignJWT, UnsecuredJWT, exportJWK, generateKeyPair, importJWK } from 'jose';
import { beforeAll, describe, expect, it } from 'vitest';
import { openShop } from '../shop/shop.js';
import { aim, fingerprint, open, routesIn, staffOnly } from './routes.js';

const shop = openShop({ psp: false });

/** Sends a request target as it is: clients clean paths up, attackers do not. */
function raw(
  method: string,
  target: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(shop.url);
    const request = httpRequest({ hostname, port, method, path: target, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode!, text }));
    });
    request.on('error', reject).end();
  });
}

describe('Without a token', () => {
  it('only the reviewed list answers', () => {
    const known = new Set(routesIn(shop));
    expect(open.filter((route) => !known.has(route))).toEqual([]);
    expect(staffOnly.filter((route) => !known.has(route))).toEqual([]);
  });

  it('every other handler of the running app is a 401', async () => {
    const closed = routesOf(shop.app).filter((route) => !open.includes(route.replace('HEAD ', 'GET ')));
    expect(closed.length).toBeGreaterThan(10);
    const before = await fingerprint(shop);
    for (const route of closed) {
      const { method, path } = aim(route);
      const answer = await shop.stranger().ask(method, path, method === 'GET' ? undefined : {});
      if (route.startsWith('HEAD ')) expect(answer.status, route).toBe(401);
      else expect(answer.problem(401), route).toBe('UNAUTHENTICATED');
      expect(answer.headers['www-authenticate'], route).toBe('Bearer');
    }
    expect(await fingerprint(shop)).toEqual(before);
  });

  it('no way of writing its path opens one', async () => {
    const closed = routesIn(shop).filter((route) => !open.includes(route));
    for (const route of closed) {
      const { method, path } = aim(route);
      const first = path[4]!;
      const tricks = [
        `/${path}`,
        path.replace('/v1/', '/v1//'),
        path.replace(`/v1/${first}`, `/v1/%${first.charCodeAt(0).toString(16)}`),
        path.replace('/v1/', '/%76%31/'),
        path.replace('/v1/', '/v1%2f'),
        path.replace('/v1/', '/v1/./'),
        path.replace('/v1/', '/v1/products/../'),
        path.replace('/v1/', '/docs/../v1/'),
        path.replace('/v1/', '/v1\\'),
        path.toUpperCase(),
        `${path}/`,
        `${path};a=b`,
        `${path}?x=/v1/products`,
        `${path}#/v1/products`,
        `${path}%20`,
        `${path}%00`,
        `${path}.json`,
        `http://${new URL(shop.url).host}${path}`,
        `http://elsewhere.example${path}`,
        '*',
      ];
      for (const target of tricks) {
        const { status, text } = await raw(method, target);
        expect([400, 401, 404, 405], `${method} ${target}: ${text}`).toContain(status);
        expect(JSON.parse(text), target).toMatchObject({ status, code: expect.any(String) });
      }
    }
  });

  it('the headers that proxies set are not believed', async () => {
    for (const header of [
      'x-user-id',
      'x_user_id',
      'x-forwarded-user',
      'x-original-url',
      'x-rewrite-url',
      'x-http-method-override',
    ]) {
      const { status } = await raw('GET', '/v1/cart', { [header]: header.includes('url') ? '/v1/products' : newId() });
      expect(status, header).toBe(401);
    }
  });
});

describe('A customer', () => {
  it('is not let in where staff works, whatever the path names, and changes nothing', async () => {
    const customer = await shop.guest();
    const before = await fingerprint(shop);
    for (const route of staffOnly) {
      const { method, path } = aim(route);
      expect((await customer.ask(method, path, {})).problem(403), route).toBe('FORBIDDEN');
    }
    expect(await fingerprint(shop)).toEqual(before);
  });

  it('cannot make herself staff', async () => {
    const account = { email: `${newId()}@example.com`, password: 'correct horse battery', name: 'Mallory' };
    const asked = await shop.stranger().post('/v1/auth/register', { ...account, roles: ['staff'] });
    expect(asked.problem(400)).toBe('INPUT_INVALID');
    expect((await shop.stranger().post('/v1/auth/register', account)).expect(201).body.roles).toEqual(['customer']);
  });
});

describe('A token', () => {
  let genuine: string;
  let parts: { header: Record<string, unknown>; payload: Record<string, unknown> };

  beforeAll(async () => {
    const customer = await shop.customer();
    genuine = customer.token;
    const [header, payload] = genuine
      .split('.')
      .slice(0, 2)
      .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>);
    parts = { header: header!, payload: payload! };
  });

  const get = (token: string) =>
    shop.stranger().get('/v1/cart', { authorization: token.startsWith(' ') ? token.trim() : `Bearer ${token}` });

  it('that is genuine is let in', async () => {
    (await get(genuine)).expect(200);
  });

  it('that is forged is a 401: fifteen ways', async () => {
    const { header, payload } = parts;
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const ours = await importJWK(shop.mint.key, 'ES256');
    const stranger = await generateKeyPair('ES256', { extractable: true });
    const strangerJwk = await exportJWK(stranger.publicKey);
    const rsa = await generateKeyPair('RS256');
    const publicPem = JSON.stringify((await shop.stranger().get('/.well-known/jwks.json')).body.keys[0]);
    const now = Math.floor(Date.now() / 1000);
    const ourHeader = { alg: 'ES256', typ: 'at+jwt', kid: shop.mint.key.kid };
    const sign = (changes: object, protectedHeader: object = ourHeader, key: Parameters<SignJWT['sign']>[0] = ours) =>
      new SignJWT({ ...payload, ...changes }).setProtectedHeader(protectedHeader as { alg: string }).sign(key);
    // The mint's own are good, so that each forgery below is refused for its one flaw.
    (await get(await sign({}))).expect(200);

    const [h, p, s] = genuine.split('.') as [string, string, string];
    const forged: Record<string, string> = {
      'not signed (alg none)': new UnsecuredJWT(payload).encode(),
      'alg none with a signature': `${encode({ ...header, alg: 'none' })}.${p}.${s}`,
      'signed by a stranger under our kid': await sign({}, ourHeader, stranger.privateKey),
      'signed by a key that it brings along (jwk)': await sign(
        {},
        { ...ourHeader, jwk: strangerJwk },
        stranger.privateKey,
      ),
      'signed by a key that it points at (jku)': await sign(
        {},
        { ...ourHeader, jku: 'http://127.0.0.1:9/keys', kid: 'theirs' },
        stranger.privateKey,
      ),
      'an HMAC with our public key as the secret': await sign(
        {},
        { ...ourHeader, alg: 'HS256', kid: header.kid },
        new TextEncoder().encode(publicPem),
      ),
      'another algorithm': await sign({}, { ...ourHeader, alg: 'RS256' }, rsa.privateKey),
      'another payload under the same signature': `${h}.${encode({ ...payload, roles: ['admin'] })}.${s}`,
      'a signature cut short': `${h}.${p}.${s.slice(0, -10)}`,
      'a kid that reaches elsewhere': await sign({}, { ...ourHeader, kid: '../../etc/passwd' }),
      'no kid': await sign({}, { alg: 'ES256', typ: 'at+jwt' }),
      expired: await sign({ exp: now - 60, iat: now - 960, nbf: now - 960 }),
      'not valid yet': await sign({ nbf: now + 600 }),
      'without an end': await sign({ exp: undefined }),
      'of another issuer': await sign({ iss: 'https://evil.example' }),
      'for another audience': await sign({ aud: 'another-api' }),
      'of another type (typ)': await sign({}, { ...ourHeader, typ: 'JWT' }),
      'of nobody (sub)': await sign({ sub: 'admin' }),
      'with a role that does not exist': await sign({ roles: ['root'] }),
      'a critical extension that nobody knows': `${encode({ ...ourHeader, crit: ['x'], x: 1 })}.${p}.${s}`,
      'another scheme': ` Basic ${Buffer.from('admin:admin').toString('base64')}`,
      empty: '',
      'a refresh token': (
        await (async () => {
          const account = { email: `${newId()}@example.com`, password: 'correct horse battery' };
          (await shop.stranger().post('/v1/auth/register', { ...account, name: 'Ray' })).expect(201);
          return (await shop.stranger().post('/v1/auth/login', account)).expect(200);
        })()
      ).body.refreshToken,
    };
    expect(Object.keys(forged).length).toBeGreaterThanOrEqual(15);
    for (const [flaw, token] of Object.entries(forged))
      expect((await get(token)).problem(401), flaw).toBe('UNAUTHENTICATED');
  });

  it('is taken from the Authorization header only', async () => {
    for (const target of [`/v1/cart?access_token=${genuine}`, `/v1/cart?token=${genuine}`])
      expect((await raw('GET', target)).status).toBeGreaterThanOrEqual(400);
    expect((await raw('GET', '/v1/cart', { cookie: `token=${genuine}` })).status).toBe(401);
  });
});
