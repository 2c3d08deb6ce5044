import { identity } from '@banyan/contracts';
import { type Actor, hasRole } from '@banyan/kernel';
import { type CommandContext, type Handlers, type QueryContext, Serves, currentScope } from '@banyan/messaging';
import { KEY_SET } from '@banyan/platform/auth';
import { Cache } from '@banyan/platform/cache';
import { decodeCursor, encodeCursor, fail } from '@banyan/platform/http';
import { z } from 'zod';
import { cappedExpiry, decideRotation } from './domain/session.js';
import { newestKey } from './domain/signing-key.js';
import { IdentityStore, type UserView } from './identity.store.js';

/** Where a page of ids ended. */
const Position = z.tuple([z.uuid()]);

type Commands = typeof identity.commands;
type Input<K extends keyof Commands> = z.output<Commands[K]['input']>;

/** Users, sessions and keys. Passwords, tokens and private keys never come here: `Authentication` has dealt with them. */
@Serves(identity)
export class IdentityService implements Handlers<typeof identity> {
  constructor(
    private readonly store: IdentityStore,
    private readonly cache: Cache,
  ) {}

  async jwks(_: object, ctx: QueryContext) {
    const keys = await this.store.publishedKeys(ctx.now);
    return { keys: keys.map((key) => key.publicJwk) };
  }

  /** A user sees themselves; for anybody else there is no such user. */
  async user({ id }: { id: string }, { actor }: QueryContext): Promise<UserView> {
    const own = actor.kind === 'user' && actor.id === id;
    const user = own || hasRole(actor, 'staff') ? await this.store.user(id) : undefined;
    if (!user) throw identity.fail('USER_NOT_FOUND', 'There is no such user');
    return user;
  }

  async userIds({ limit, cursor }: z.output<typeof identity.queries.userIds.input>, { actor }: QueryContext) {
    if (!hasRole(actor, 'staff')) throw fail('FORBIDDEN', 'Who has an account is for staff to know');
    const found = await this.store.userIds(limit + 1, decodeCursor(cursor, Position)?.[0]);
    const items = found.slice(0, limit);
    return { items, nextCursor: found.length > limit ? encodeCursor([items.at(-1)]) : null };
  }

  async credentials({ email }: { email: string }, { actor }: QueryContext) {
    withinTheSystem(actor);
    return { account: (await this.store.credentialsOf(email)) ?? null };
  }

  async signingKeys(_: object, { actor, now }: QueryContext) {
    withinTheSystem(actor);
    const keys = await this.store.publishedKeys(now);
    return {
      keys: keys.map(({ kid, sealedPrivateJwk, createdAt, signFrom, publishUntil }) => ({
        kid,
        sealedPrivateJwk,
        createdAt: createdAt.toISOString(),
        signFrom: signFrom.toISOString(),
        publishUntil: publishUntil?.toISOString() ?? null,
      })),
    };
  }

  async register({ email, name, passwordHash, roles }: Input<'register'>, ctx: CommandContext): Promise<UserView> {
    // The HTTP body has no roles; this holds for whoever else calls.
    if (ctx.actor.kind !== 'system' && roles.some((role) => role !== 'customer'))
      throw identity.fail('ROLES_NOT_ALLOWED', 'An account starts as a customer');
    const id = ctx.newId();
    const added = await this.store.addUser({ id, email, name, roles, createdAt: ctx.now }, passwordHash);
    if (!added) throw identity.fail('EMAIL_TAKEN', 'There is an account with this e-mail address');
    ctx.emit(identity.events.UserRegistered, id, { userId: id, email, name });
    return { id, email, name, roles, createdAt: ctx.now.toISOString() };
  }

  async openSession({ userId, tokenHash, ...until }: Input<'openSession'>, ctx: CommandContext) {
    if (!(await this.store.user(userId))) throw identity.fail('USER_NOT_FOUND', 'There is no such user');
    const endsAt = new Date(until.endsAt);
    const expiresAt = cappedExpiry(new Date(until.expiresAt), endsAt);
    const sessionId = ctx.newId();
    await this.store.addSession({ id: sessionId, userId, openedAt: ctx.now, expiresAt, endsAt });
    await this.store.addToken({ tokenHash, sessionId, issuedAt: ctx.now, expiresAt });
    return { sessionId };
  }

  /** Reuse is an answer and not an error: an error would roll the revocation back. */
  async rotateSession({ tokenHash, nextTokenHash, expiresAt }: Input<'rotateSession'>, ctx: CommandContext) {
    const token = await this.store.lockToken(tokenHash);
    const decision = decideRotation(token, ctx.now);
    if (!token || decision === 'invalid') return { status: 'invalid' as const };
    if (decision === 'reused') {
      await this.store.revokeSession(token.sessionId, ctx.now);
      return { status: 'reused' as const };
    }
    const until = cappedExpiry(new Date(expiresAt), token.endsAt);
    await this.store.useToken(tokenHash, ctx.now);
    await this.store.addToken({
      tokenHash: nextTokenHash,
      sessionId: token.sessionId,
      issuedAt: ctx.now,
      expiresAt: until,
    });
    await this.store.prolongSession(token.sessionId, until);
    return { status: 'rotated' as const, sessionId: token.sessionId, user: token.user };
  }

  async closeSession({ tokenHash }: Input<'closeSession'>, ctx: CommandContext) {
    const token = await this.store.lockToken(tokenHash);
    if (token) await this.store.revokeSession(token.sessionId, ctx.now);
    return {};
  }

  async rotateSigningKey(input: Input<'rotateSigningKey'>, ctx: CommandContext) {
    const { publicJwk, sealedPrivateJwk, replaces } = input;
    const newest = newestKey(await this.store.publishedKeys(ctx.now));
    const first = replaces === null ? !newest : await this.store.retireKey(replaces, new Date(input.publishUntil));
    if (!first && newest) return { kid: newest.kid };
    await this.store.addKey({
      kid: publicJwk.kid,
      publicJwk,
      sealedPrivateJwk,
      replaces,
      createdAt: ctx.now,
      signFrom: new Date(input.signFrom),
      publishUntil: null,
    });
    this.keysChanged();
    const kept = newestKey(await this.store.publishedKeys(ctx.now));
    return { kid: kept?.kid ?? publicJwk.kid };
  }

  async removeExpired({ limit }: Input<'removeExpired'>, ctx: CommandContext) {
    const removed = await this.store.removeExpired(ctx.now, limit);
    if (removed.keys > 0) this.keysChanged();
    return removed;
  }

  /** Whoever checks tokens is to ask for the keys again, once this has been committed. */
  private keysChanged(): void {
    currentScope()?.afterCommit?.(() => void this.cache.forget({ keys: [KEY_SET.key] }));
  }
}

/** No user's request may come by these, whatever their roles. */
function withinTheSystem(actor: Actor): void {
  if (actor.kind !== 'system') throw fail('FORBIDDEN', 'This is for the system itself');
}
