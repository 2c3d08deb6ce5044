import type { Role } from '@banyan/kernel';
import { TokenSigner } from '@banyan/platform/auth';
import type { Config } from '@banyan/platform/config';
import type { TestDatabase } from '@banyan/testing';
import { type JWK, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose';

/**
 * Signs access tokens with a key that the shop publishes beside its own: hundreds of good tokens without hundreds of
 * password hashes (25 ms of CPU each). The app never signs with it, because it cannot open it.
 */
export class TokenMint {
  private constructor(
    private readonly signer: TokenSigner,
    readonly key: JWK,
  ) {}

  static async open(database: TestDatabase, config: Config): Promise<TokenMint> {
    const { privateKey } = await generateKeyPair('ES256', { extractable: true });
    const jwk = await exportJWK(privateKey);
    const kid = await calculateJwkThumbprint(jwk);
    const { kty, crv, x, y } = jwk;
    await database.admin(
      `insert into identity.signing_key (kid, public_jwk, sealed_private_jwk, replaces, created_at, sign_from, publish_until)
       values ($1, $2, 'not for the app', 'test', now(), '2100-01-01', '2100-01-01')`,
      [kid, { kty, crv, x, y, kid, alg: 'ES256', use: 'sig' }],
    );
    return new TokenMint(new TokenSigner(config.auth), { ...jwk, kid });
  }

  token(id: string, roles: readonly Role[]): Promise<string> {
    return this.signer.sign({ id, roles }, this.key);
  }
}
