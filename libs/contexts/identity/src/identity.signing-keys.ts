import { Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import { PublicJwk, identity } from '@banyan/contracts';
import { system } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { Config, keptSecret } from '@banyan/platform/config';
import { fail } from '@banyan/platform/http';
import { type JWK, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose';
import { type KeyTimes, isDue, newestKey, signingKeyAt, succession } from './domain/signing-key.js';
import { seal, unseal } from './identity.sealing.js';

interface SealedKey extends KeyTimes {
  sealedPrivateJwk: string;
}

const actor = system('identity');

/** A key signs at most this long after another process has replaced it; `succession` leaves ten times as much. */
const cachedMs = 60_000;

/** No longer than this does a start wait for whoever owns the keys, ms. */
const patienceMs = 2_000;

/** The private keys, opened. They are asked for by the bus, wherever the context is owned, and travel sealed. */
@Injectable()
export class SigningKeys implements OnApplicationBootstrap {
  private readonly log = new Logger('SigningKeys');
  private cached: { key: JWK; until: number } | undefined;
  private loading: Promise<JWK> | undefined;
  private kept: string | undefined;

  constructor(
    @InjectClient(identity) private readonly client: Client<typeof identity>,
    private readonly config: Config,
  ) {}

  /** Makes the first key: nobody waits for it at the first login. */
  async onApplicationBootstrap(): Promise<void> {
    // A service that does not own the keys yet, or whose owner is not up, starts without: a login looks again.
    await this.current().catch((error: unknown) => this.log.warn({ msg: 'no signing key yet', err: error }));
  }

  /** The private key that signs now, with its `kid`. */
  async current(): Promise<JWK> {
    if (this.cached && this.cached.until > Date.now()) return this.cached.key;
    return (this.loading ??= this.load().finally(() => (this.loading = undefined)));
  }

  /** Publishes the next key when the newest one is old enough. */
  async rotateIfDue(now: Date): Promise<void> {
    const newest = newestKey(await this.keys());
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
      const keys = await this.keys();
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
    throw fail(
      'UNAVAILABLE',
      'No signing key: it is not here yet, or other processes replace it with another BANYAN_SECRET',
    );
  }

  private async keys(): Promise<SealedKey[]> {
    const { keys } = await this.client.signingKeys({}, { actor, timeoutMs: patienceMs });
    return keys.map(({ createdAt, signFrom, publishUntil, ...key }) => ({
      ...key,
      createdAt: new Date(createdAt),
      signFrom: new Date(signFrom),
      publishUntil: publishUntil === null ? null : new Date(publishUntil),
    }));
  }

  private get secret(): string {
    return (this.kept ??= this.config.auth.secret ?? keptSecret(this.config.stateDir, 'signing-secret'));
  }

  private open(stored: SealedKey): JWK | undefined {
    const text = unseal(stored.sealedPrivateJwk, stored.kid, this.secret);
    return text === undefined ? undefined : (JSON.parse(text) as JWK);
  }

  private async replace(previous: SealedKey | undefined, signFrom: Date, publishUntil: Date): Promise<void> {
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
      { actor, timeoutMs: patienceMs },
    );
    if (kept.kid === kid) this.log.log({ msg: 'new signing key', kid, replaces: previous?.kid });
  }
}
