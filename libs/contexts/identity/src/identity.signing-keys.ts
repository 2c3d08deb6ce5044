import { Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import { PublicJwk, identity } from '@banyan/contracts';
import { system } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { Config, keptSecret } from '@banyan/platform/config';
import { type JWK, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose';
import { isDue, newestKey, signingKeyAt, succession } from './domain/signing-key.js';
import { seal, unseal } from './identity.sealing.js';
import { IdentityStore, type StoredKey } from './identity.store.js';

/** A key signs at most this long after another process has replaced it; `succession` leaves ten times as much. */
const cachedMs = 60_000;

/** The private keys, opened. They are read from our own store, and leave it sealed. */
@Injectable()
export class SigningKeys implements OnApplicationBootstrap {
  private readonly log = new Logger('SigningKeys');
  private cached: { key: JWK; until: number } | undefined;
  private loading: Promise<JWK> | undefined;
  private kept: string | undefined;

  constructor(
    private readonly store: IdentityStore,
    @InjectClient(identity) private readonly client: Client<typeof identity>,
    private readonly config: Config,
  ) {}

  /** Makes the first key: nobody waits for it at the first login. */
  async onApplicationBootstrap(): Promise<void> {
    await this.current();
  }

  /** The private key that signs now, with its `kid`. */
  async current(): Promise<JWK> {
    if (this.cached && this.cached.until > Date.now()) return this.cached.key;
    return (this.loading ??= this.load().finally(() => (this.loading = undefined)));
  }

  /** Publishes the next key when the newest one is old enough. */
  async rotateIfDue(now: Date): Promise<void> {
    const newest = newestKey(await this.store.publishedKeys(now));
    if (!newest || !isDue(newest, this.config.auth.signingKeySeconds, now)) return;
    const { signFrom, publishUntil } = succession(newest, this.config.auth.accessTokenSeconds, now);
    await this.replace(newest, signFrom, publishUntil);
  }

  /**
   * When there is no key, or none that our secret opens, a new one signs at once: with a lost secret nobody could sign
   * in any more. The keys before stay published, so the tokens they signed stay good.
   */
  private async load(): Promise<JWK> {
    for (let attempt = 0; attempt < 3; attempt++) {
      const now = new Date();
      const keys = await this.store.publishedKeys(now);
      const openable = keys.flatMap((stored) => {
        const key = this.open(stored);
        return key ? [{ ...stored, key }] : [];
      });
      const signing = signingKeyAt(openable, now);
      if (signing) {
        this.cached = { key: signing.key, until: Date.now() + cachedMs };
        return signing.key;
      }
      const newest = newestKey(keys);
      if (newest) this.log.warn({ msg: 'BANYAN_SECRET opens no signing key: making a new one', replaces: newest.kid });
      await this.replace(newest, now, succession(undefined, this.config.auth.accessTokenSeconds, now).publishUntil);
    }
    throw new Error('No signing key: other processes replace it with another BANYAN_SECRET');
  }

  private get secret(): string {
    return (this.kept ??= this.config.auth.secret ?? keptSecret(this.config.stateDir, 'signing-secret'));
  }

  private open(stored: StoredKey): JWK | undefined {
    const text = unseal(stored.sealedPrivateJwk, stored.kid, this.secret);
    return text === undefined ? undefined : (JSON.parse(text) as JWK);
  }

  private async replace(previous: StoredKey | undefined, signFrom: Date, publishUntil: Date): Promise<void> {
    const { privateKey } = await generateKeyPair('ES256', { extractable: true });
    const privateJwk = await exportJWK(privateKey);
    const kid = await calculateJwkThumbprint(privateJwk);
    const { kty, crv, x, y } = privateJwk;
    const kept = await this.client.rotateSigningKey(
      {
        publicJwk: PublicJwk.parse({ kty, crv, x, y, kid, alg: 'ES256', use: 'sig' }),
        sealedPrivateJwk: seal(JSON.stringify({ ...privateJwk, kid, alg: 'ES256' }), kid, this.secret),
        replaces: previous?.kid ?? null,
        signFrom: signFrom.toISOString(),
        publishUntil: publishUntil.toISOString(),
      },
      { actor: system('identity') },
    );
    if (kept.kid === kid) this.log.log({ msg: 'new signing key', kid, replaces: previous?.kid });
  }
}
