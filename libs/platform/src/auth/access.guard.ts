import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { FastifyRequest } from 'fastify';
import { type Role, anonymous, hasRole } from '@banyan/kernel';
import { Config } from '../config/index.js';
import { fail } from '../http/errors.js';
import { PUBLIC, ROLES } from './access.js';
import { AccessTokens } from './access-tokens.js';
import { rpcToken, sameToken } from './rpc-token.js';

/**
 * The one guard: global, and it denies by default. Path-scoped checks have been bypassed again and again (`//x`,
 * `%61`, absolute-form), so access is decided on the handler that will run, never on the path. Messages of other
 * processes come this way too: they carry the token that only our own processes can make.
 */
@Injectable()
export class AccessGuard implements CanActivate {
  private ourToken: string | undefined;

  constructor(
    private readonly reflector: Reflector,
    private readonly tokens: AccessTokens,
    private readonly config: Config,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    if (context.getType() === 'rpc') return this.isOurs(context.switchToRpc().getData<unknown>());
    if (context.getType() !== 'http') return false;
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const targets = [context.getHandler(), context.getClass()];
    const token = bearerOf(request.headers.authorization);
    if (this.reflector.getAllAndOverride<boolean | undefined>(PUBLIC, targets)) {
      // An expired token must not keep anyone from refreshing it: here a bad token is the same as none.
      request.actor = token === undefined ? anonymous : await this.tokens.verify(token).catch(() => anonymous);
      return true;
    }
    if (token === undefined) throw fail('UNAUTHENTICATED', 'Send Authorization: Bearer <access token>');
    request.actor = await this.tokens.verify(token);
    const roles = this.reflector.getAllAndOverride<Role[] | undefined>(ROLES, targets);
    if (roles && !hasRole(request.actor, ...roles))
      throw fail('FORBIDDEN', `This needs the role ${roles.join(' or ')}`);
    return true;
  }

  private isOurs(message: unknown): boolean {
    this.ourToken ??= rpcToken(this.config);
    if (sameToken(this.ourToken, (message as { token?: unknown } | null | undefined)?.token)) return true;
    throw fail('UNAUTHENTICATED', 'This is not a process of ours: do both have the same BANYAN_SECRET?');
  }
}

/** The token of a Bearer authorization (RFC 6750); undefined for any other scheme. */
const bearerOf = (authorization: string | undefined): string | undefined =>
  authorization === undefined ? undefined : /^Bearer +([\w.~+/=-]+) *$/i.exec(authorization)?.[1];
