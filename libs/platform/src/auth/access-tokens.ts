import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { type Actor, Role } from '@banyan/kernel';
import {
  type CryptoKey,
  type JSONWebKeySet,
  type JWK,
  type JWTHeaderParameters,
  SignJWT,
  importJWK,
  jwtVerify,
} from 'jose';
import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import { fail } from '../http/errors.js';

const algorithm = 'ES256';
/** RFC 9068: says "access token", so that a refresh token or any other JWT of ours is not taken for one. */
const type = 'at+jwt';

/**
 * Where the public keys come from: the identity context, or its key set over HTTP. `missing`: a token, which anybody may
 * have made, names this key; an answer that was kept from earlier and does not have it will not do.
 */
export type KeySource = (ask: { missing?: string }) => Promise<JSONWebKeySet>;

export interface TokenSettings {
  issuer: string;
  audience: string;
}

export interface VerifierSettings extends TokenSettings {
  /** How long a key set is believed. Default 5 minutes. */
  keysMs?: number;
  /** An unknown `kid` asks the source again, at most once in this time. Default 10 seconds. */
  cooldownMs?: number;
  /** Clock difference forgiven between us and the signer. Default 5 seconds. */
  toleranceSeconds?: number;
  now?: () => Date;
}

const Claims = z.object({ sub: z.uuid(), roles: z.array(Role), exp: z.number() });

/** How long a verdict is reused: verifying costs about 0.15 ms of CPU, and a buyer sends one token many times. */
const verdictMs = 30_000;

/**
 * Verifies access tokens: ES256 and nothing else, with keys from our own key set. `jku`, `jwk`, `x5u` and the like in
 * a token are never looked at.
 */
@Injectable()
export class AccessTokens {
  private readonly keys: LRUCache<string, CryptoKey>;
  private readonly verdicts: LRUCache<string, { actor: Actor; exp: number }>;
  private readonly now: () => Date;
  private fetchedAt = Number.NEGATIVE_INFINITY;
  private triedAt = Number.NEGATIVE_INFINITY;
  private failure: unknown;
  private fetching: Promise<void> | undefined;

  constructor(
    private readonly source: KeySource,
    private readonly settings: VerifierSettings,
  ) {
    this.now = settings.now ?? (() => new Date());
    this.keys = new LRUCache({ max: 32 });
    this.verdicts = new LRUCache({ max: 10_000, ttl: verdictMs, perf: { now: () => this.now().getTime() } });
  }

  /** The user a token speaks for. Throws UNAUTHENTICATED, without saying which check failed. */
  async verify(token: string): Promise<Actor> {
    const nowSeconds = this.now().getTime() / 1000;
    const verdict = this.verdicts.get(token);
    if (verdict && verdict.exp > nowSeconds) return verdict.actor;
    try {
      const { payload } = await jwtVerify(token, (header) => this.keyOf(header), {
        algorithms: [algorithm],
        typ: type,
        issuer: this.settings.issuer,
        audience: this.settings.audience,
        requiredClaims: ['exp', 'iat', 'sub'],
        clockTolerance: this.settings.toleranceSeconds ?? 5,
        currentDate: this.now(),
      });
      const claims = Claims.parse(payload);
      const actor: Actor = { kind: 'user', id: claims.sub, roles: claims.roles };
      this.verdicts.set(token, { actor, exp: claims.exp });
      return actor;
    } catch (error) {
      if (error instanceof KeySourceFailed)
        throw fail('UPSTREAM_UNAVAILABLE', 'Tokens cannot be checked right now', undefined, { cause: error.cause });
      throw fail('UNAUTHENTICATED', 'The access token is not valid', undefined, { cause: error });
    }
  }

  private async keyOf(header: JWTHeaderParameters): Promise<CryptoKey> {
    const { kid } = header;
    if (typeof kid !== 'string') throw new TypeError('the token names no key');
    const now = this.now().getTime();
    const known = this.keys.has(kid);
    const stale = now - this.fetchedAt >= (this.settings.keysMs ?? 5 * 60_000);
    // A source that failed is asked sooner: there is no forger to hold back, only a neighbour that is starting.
    const cooldownMs = this.failure === undefined ? (this.settings.cooldownMs ?? 10_000) : 500;
    if ((stale || !known) && now - this.triedAt >= cooldownMs) this.fetching ??= this.fetch(known ? undefined : kid);
    await this.fetching;
    const key = this.keys.get(kid);
    if (key) return key;
    if (this.failure !== undefined) throw new KeySourceFailed('no keys', { cause: this.failure });
    throw new TypeError('the token names an unknown key');
  }

  /** Never rejects: known keys keep working while their source is down. */
  private async fetch(missing: string | undefined): Promise<void> {
    this.triedAt = this.now().getTime();
    try {
      await this.replaceKeys(missing);
      this.failure = undefined;
      this.fetchedAt = this.triedAt;
    } catch (error) {
      this.failure = error;
    } finally {
      this.fetching = undefined;
    }
  }

  private async replaceKeys(missing: string | undefined): Promise<void> {
    const { keys } = await this.source({ missing });
    const usable = keys.filter((jwk) => jwk.kty === 'EC' && jwk.crv === 'P-256' && jwk.kid && jwk.d === undefined);
    const imported = await Promise.all(
      usable.map(async (jwk) => [jwk.kid as string, (await importJWK(jwk, algorithm)) as CryptoKey] as const),
    );
    // A key that left the set must stop working now, so what it vouched for goes with it.
    const gone = [...this.keys.keys()].some((kid) => !usable.some((jwk) => jwk.kid === kid));
    if (gone) this.verdicts.clear();
    this.keys.clear();
    for (const [kid, key] of imported) this.keys.set(kid, key);
  }
}

class KeySourceFailed extends Error {}

/** Signs access tokens: what the identity context needs besides its keys. */
export class TokenSigner {
  constructor(private readonly settings: TokenSettings & { accessTokenSeconds: number }) {}

  /** A token for a user, signed with an ES256 private JWK that carries its `kid`. */
  async sign(user: { id: string; roles: readonly Role[] }, key: JWK, now: Date = new Date()): Promise<string> {
    const issued = Math.floor(now.getTime() / 1000);
    return new SignJWT({ roles: user.roles })
      .setProtectedHeader({ alg: algorithm, typ: type, kid: key.kid })
      .setSubject(user.id)
      .setJti(randomUUID())
      .setIssuer(this.settings.issuer)
      .setAudience(this.settings.audience)
      .setIssuedAt(issued)
      .setNotBefore(issued)
      .setExpirationTime(issued + this.settings.accessTokenSeconds)
      .sign(await importJWK(key, algorithm));
  }
}
