import { Injectable } from '@nestjs/common';
import { PublicJwk, identity, type User } from '@banyan/contracts';
import type { Role } from '@banyan/kernel';
import { Database, InjectDatabase } from '@banyan/platform/database';
import type { z } from 'zod';
import type { KeyTimes } from './domain/signing-key.js';
import type { TokenState } from './domain/session.js';
import { PrismaClient } from './generated/client.js';

export type UserView = z.output<typeof User>;

export interface PresentedToken extends TokenState {
  sessionId: string;
  endsAt: Date;
  user: UserView;
}

export interface StoredKey extends KeyTimes {
  publicJwk: z.output<typeof PublicJwk>;
  sealedPrivateJwk: string;
}

interface UserRow {
  id: string;
  email: string;
  name: string;
  roles: string[];
  createdAt: Date;
}

const userOf = (row: UserRow): UserView => ({
  id: row.id,
  email: row.email,
  name: row.name,
  roles: row.roles as Role[],
  createdAt: row.createdAt.toISOString(),
});

@Injectable()
export class IdentityStore {
  private readonly prisma: PrismaClient;

  constructor(@InjectDatabase(identity) db: Database) {
    this.prisma = new PrismaClient({ adapter: db.prismaAdapter() });
  }

  /** False when the address has an account already. */
  async addUser(user: UserRow, passwordHash: string): Promise<boolean> {
    const { count } = await this.prisma.userAccount.createMany({ data: [user], skipDuplicates: true });
    if (count === 0) return false;
    await this.prisma.credential.createMany({ data: [{ userId: user.id, passwordHash, changedAt: user.createdAt }] });
    return true;
  }

  async user(id: string): Promise<UserView | undefined> {
    const row = await this.prisma.userAccount.findFirst({ where: { id } });
    return row ? userOf(row) : undefined;
  }

  /** Ids of accounts, oldest first, starting after the account `after`. */
  async userIds(limit: number, after: string | undefined): Promise<string[]> {
    const rows = await this.prisma.userAccount.findMany({
      ...(after !== undefined && { where: { id: { gt: after } } }),
      select: { id: true },
      orderBy: { id: 'asc' },
      take: limit,
    });
    return rows.map(({ id }) => id);
  }

  /** The account of an address and its password hash. */
  async credentialsOf(email: string): Promise<{ user: UserView; passwordHash: string } | undefined> {
    const row = await this.prisma.userAccount.findFirst({ where: { email }, include: { credential: true } });
    return row?.credential ? { user: userOf(row), passwordHash: row.credential.passwordHash } : undefined;
  }

  async addSession(session: {
    id: string;
    userId: string;
    openedAt: Date;
    expiresAt: Date;
    endsAt: Date;
  }): Promise<void> {
    await this.prisma.session.createMany({ data: [session] });
  }

  async addToken(token: { tokenHash: string; sessionId: string; issuedAt: Date; expiresAt: Date }): Promise<void> {
    await this.prisma.refreshToken.createMany({ data: [token] });
  }

  /**
   * A refresh token and its session, both locked until the end of the transaction: of two that present one token at
   * once, the second sees what the first has done. Always token before session, so two of them cannot deadlock.
   */
  async lockToken(tokenHash: string): Promise<PresentedToken | undefined> {
    const [row] = await this.prisma.$queryRaw<
      (UserRow & {
        sessionId: string;
        usedAt: Date | null;
        tokenExpiresAt: Date;
        endsAt: Date;
        revokedAt: Date | null;
      })[]
    >`
      SELECT t.session_id AS "sessionId", t.used_at AS "usedAt", t.expires_at AS "tokenExpiresAt",
             s.ends_at AS "endsAt", s.revoked_at AS "revokedAt",
             u.id, u.email, u.name, u.roles, u.created_at AS "createdAt"
      FROM refresh_token t
      JOIN session s ON s.id = t.session_id
      JOIN user_account u ON u.id = s.user_id
      WHERE t.token_hash = ${tokenHash}
      FOR UPDATE OF t, s`;
    if (!row) return undefined;
    const { sessionId, usedAt, tokenExpiresAt, endsAt, revokedAt } = row;
    return { sessionId, usedAt, expiresAt: tokenExpiresAt, endsAt, revokedAt, user: userOf(row) };
  }

  async useToken(tokenHash: string, at: Date): Promise<void> {
    await this.prisma.refreshToken.updateMany({ where: { tokenHash, usedAt: null }, data: { usedAt: at } });
  }

  async prolongSession(id: string, expiresAt: Date): Promise<void> {
    await this.prisma.session.updateMany({ where: { id, revokedAt: null }, data: { expiresAt } });
  }

  async revokeSession(id: string, at: Date): Promise<void> {
    await this.prisma.session.updateMany({ where: { id, revokedAt: null }, data: { revokedAt: at, expiresAt: at } });
  }

  /** Keys that somebody may still verify with, newest first. */
  async publishedKeys(now: Date): Promise<StoredKey[]> {
    const rows = await this.prisma.signingKey.findMany({
      where: { OR: [{ publishUntil: null }, { publishUntil: { gt: now } }] },
      orderBy: [{ signFrom: 'desc' }, { kid: 'asc' }],
    });
    return rows.map(({ publicJwk, ...row }) => ({ ...row, publicJwk: PublicJwk.parse(publicJwk) }));
  }

  /** False when `kid` is not the newest key any more. */
  async retireKey(kid: string, publishUntil: Date): Promise<boolean> {
    const { count } = await this.prisma.signingKey.updateMany({
      where: { kid, publishUntil: null },
      data: { publishUntil },
    });
    return count === 1;
  }

  /** Adds the newest key. Another starter's key in the same place wins, and this one is dropped. */
  async addKey(key: StoredKey & { replaces: string | null }): Promise<void> {
    await this.prisma.signingKey.createMany({ data: [{ ...key, replaces: key.replaces ?? '' }], skipDuplicates: true });
  }

  /** The sessions that are locked right now are left for the next sweep. */
  async removeExpired(now: Date, limit: number): Promise<{ sessions: number; keys: number }> {
    const sessions = await this.prisma.$executeRaw`
      WITH gone AS (
        SELECT id FROM session WHERE expires_at <= ${now} ORDER BY expires_at LIMIT ${limit} FOR UPDATE SKIP LOCKED
      ), tokens AS (
        DELETE FROM refresh_token WHERE session_id IN (SELECT id FROM gone)
      )
      DELETE FROM session WHERE id IN (SELECT id FROM gone)`;
    const keys = await this.prisma.signingKey.deleteMany({ where: { publishUntil: { lte: now } } });
    return { sessions, keys: keys.count };
  }
}
