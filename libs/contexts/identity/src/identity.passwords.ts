import { randomBytes } from 'node:crypto';
import { Injectable, type OnModuleInit } from '@nestjs/common';
import { hash, verify } from '@node-rs/argon2';
import { Config } from '@banyan/platform/config';
import { fail } from '@banyan/platform/http';
import { type BulkheadPolicy, bulkhead, isBulkheadRejectedError } from 'cockatiel';

/**
 * Hashes and checks passwords with Argon2id (trap 25). One hash takes some 40 ms of a core and 19 MiB, so only a few
 * run at once and the queue is bounded: logins must not starve the rest.
 */
@Injectable()
export class Passwords implements OnModuleInit {
  private readonly cost;
  private readonly gate: BulkheadPolicy;
  private dummyHash = '';

  constructor(config: Config) {
    const { passwordMemoryKib, passwordPasses, passwordHashesAtOnce, passwordHashesWaiting } = config.auth;
    // The library's default algorithm is Argon2id; a spec holds it to that.
    this.cost = { memoryCost: passwordMemoryKib, timeCost: passwordPasses, parallelism: 1 };
    this.gate = bulkhead(passwordHashesAtOnce, passwordHashesWaiting);
  }

  async onModuleInit(): Promise<void> {
    this.dummyHash = await this.hash(randomBytes(24).toString('base64url'));
  }

  hash(password: string): Promise<string> {
    return this.inTurn(() => hash(written(password), this.cost));
  }

  /**
   * Does the password fit the hash? Without a hash (nobody has this address) a dummy is checked instead, so that the
   * answer takes as long.
   */
  async verify(passwordHash: string | undefined, password: string): Promise<boolean> {
    const fits = await this.inTurn(() => verify(passwordHash ?? this.dummyHash, written(password)));
    return fits && passwordHash !== undefined;
  }

  private async inTurn<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await this.gate.execute(work);
    } catch (error) {
      if (!isBulkheadRejectedError(error)) throw error;
      throw fail('UNAVAILABLE', 'Too many are signing in right now', { retryAfterMs: 1_000 });
    }
  }
}

/** One form for what keyboards write differently (NIST SP 800-63B, 3.1.1.2). */
const written = (password: string): string => password.normalize('NFKC');
