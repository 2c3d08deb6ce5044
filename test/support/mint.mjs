import { randomUUID } from 'node:crypto';
import { calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose';
import pg from 'pg';
import { TokenSigner } from '@banyan/platform/auth';
import { loadConfig } from '@banyan/platform/config';

/**
 * Users who never registered: their tokens are signed with a key that is put beside the shop's own. Hundreds of sessions
 * without hundreds of password hashes (25 ms of CPU each). To be called before the first token is checked, because an
 * unknown key is looked for every 10 s only.
 */
export async function mintUsers(adminUrl, count, rolesOf) {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  const jwk = await exportJWK(privateKey);
  const kid = await calculateJwkThumbprint(jwk);
  const { kty, crv, x, y } = jwk;
  const client = new pg.Client({ connectionString: adminUrl });
  await client.connect();
  try {
    await client.query(
      `insert into identity.signing_key (kid, public_jwk, sealed_private_jwk, replaces, created_at, sign_from, publish_until)
       values ($1, $2, 'not for the app', 'mint', now(), '2100-01-01', '2100-01-01')`,
      [kid, { kty, crv, x, y, kid, alg: 'ES256', use: 'sig' }],
    );
  } finally {
    await client.end();
  }
  const signer = new TokenSigner(loadConfig({}).auth);
  return Promise.all(
    Array.from({ length: count }, async (_, n) => {
      const [id, roles] = [randomUUID(), rolesOf(n)];
      return { id, roles, token: await signer.sign({ id, roles }, { ...jwk, kid }) };
    }),
  );
}
