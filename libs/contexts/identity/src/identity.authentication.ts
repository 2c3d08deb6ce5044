import { createHash, randomBytes } from 'node:crypto';
import { Injectable, Logger } from '@nestjs/common';
import { identity } from '@banyan/contracts';
import { system } from '@banyan/kernel';
import { type Client, InjectClient } from '@banyan/messaging';
import { TokenSigner } from '@banyan/platform/auth';
import { Config } from '@banyan/platform/config';
import { RateLimits } from '@banyan/platform/http';
import type { JWK } from 'jose';
import { Passwords } from './identity.passwords.js';
import { SigningKeys } from './identity.signing-keys.js';
import type { UserView } from './identity.store.js';

export interface Tokens {
  accessToken: string;
  refreshToken: string;
  tokenType: 'Bearer';
  /** Seconds until the access token expires. */
  expiresIn: number;
}

/**
 * What has to happen outside a command: passwords, tokens and private keys stop here, and the command gets a hash.
 */
@Injectable()
export class Authentication {
  private readonly log = new Logger('Authentication');

  constructor(
    @InjectClient(identity) private readonly client: Client<typeof identity>,
    private readonly passwords: Passwords,
    private readonly keys: SigningKeys,
    private readonly signer: TokenSigner,
    private readonly limits: RateLimits,
    private readonly config: Config,
  ) {}

  /** Throws EMAIL_TAKEN (409), RATE_LIMITED (429), UNAVAILABLE (503). */
  async register(account: { email: string; password: string; name: string }, address: string): Promise<UserView> {
    await this.limits.take('register.address', address);
    const { email, name, password } = account;
    return this.client.register({ email, name, passwordHash: await this.passwords.hash(password) });
  }

  /** Throws INVALID_CREDENTIALS (401), the same and as late for an unknown address as for a wrong password. */
  async login(email: string, password: string, address: string): Promise<Tokens> {
    await this.limits.take('login.account', email);
    await this.limits.take('login.address', address);
    const { account } = await this.client.credentials({ email }, { actor: system('identity') });
    const fits = await this.passwords.verify(account?.passwordHash, password);
    if (!account || !fits) throw identity.fail('INVALID_CREDENTIALS', 'The e-mail address or the password is wrong');
    await this.limits.clear('login.account', email);
    await this.limits.giveBack('login.address', address);

    const key = await this.keys.current();
    const refreshToken = newRefreshToken();
    await this.client.openSession({
      userId: account.user.id,
      tokenHash: hashOf(refreshToken),
      expiresAt: this.fromNow(this.config.auth.refreshTokenSeconds),
      endsAt: this.fromNow(this.config.auth.sessionSeconds),
    });
    return this.tokensFor(account.user, refreshToken, key);
  }

  /** The next pair of tokens. Throws INVALID_REFRESH_TOKEN (401); a token used twice has ended its session by then. */
  async refresh(presented: string): Promise<Tokens> {
    const key = await this.keys.current();
    const refreshToken = newRefreshToken();
    const rotation = await this.client.rotateSession({
      tokenHash: hashOf(presented),
      nextTokenHash: hashOf(refreshToken),
      expiresAt: this.fromNow(this.config.auth.refreshTokenSeconds),
    });
    if (rotation.status === 'rotated') return this.tokensFor(rotation.user, refreshToken, key);
    if (rotation.status === 'reused')
      this.log.warn({ msg: 'a refresh credential was used twice: its session has ended' });
    throw identity.fail('INVALID_REFRESH_TOKEN', 'The refresh token is not valid: sign in again');
  }

  /** Ends the session of a refresh token; one that is not known has no session to end. */
  async logout(presented: string): Promise<void> {
    await this.client.closeSession({ tokenHash: hashOf(presented) });
  }

  private async tokensFor(user: UserView, refreshToken: string, key: JWK): Promise<Tokens> {
    return {
      accessToken: await this.signer.sign(user, key),
      refreshToken,
      tokenType: 'Bearer',
      expiresIn: this.config.auth.accessTokenSeconds,
    };
  }

  private fromNow(seconds: number): string {
    return new Date(Date.now() + seconds * 1000).toISOString();
  }
}

const newRefreshToken = (): string => randomBytes(32).toString('base64url');

/** A refresh token is 256 random bits: nothing to guess, so a plain hash keeps it safe at rest. */
const hashOf = (token: string): string => createHash('sha256').update(token).digest('hex');
