import { createHash, timingSafeEqual } from 'node:crypto';
import { type CanActivate, type ExecutionContext, Inject, Injectable, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { fail } from '@banyan/platform/http';
import type { FastifyRequest } from 'fastify';

/** Who may call a handler: whoever operates the system, or its own processes (operators may do that, too). */
export type Caller = 'operator' | 'client';

const CALLER = 'control:caller';

/** For whom a handler or controller is. Without it: operators only. */
export const For = (caller: Caller): MethodDecorator & ClassDecorator => SetMetadata(CALLER, caller);

export interface Tokens {
  operator: string;
  client: string;
}
export const TOKENS = Symbol('Tokens');

/**
 * The one guard, in front of every handler: it looks at the handler that will run, never at the path. A token comes
 * as `Bearer <token>`, or bare, as Unleash's clients send it.
 */
@Injectable()
export class ControlGuard implements CanActivate {
  constructor(
    private readonly reflector: Reflector,
    @Inject(TOKENS) private readonly tokens: Tokens,
  ) {}

  canActivate(context: ExecutionContext): boolean {
    if (context.getType() !== 'http') return false;
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const given = request.headers.authorization?.replace(/^Bearer +/i, '').trim();
    if (!given)
      throw fail(
        'UNAUTHENTICATED',
        'Send Authorization: Bearer <operator token>; `banyan up` keeps it in its state folder',
      );
    const caller: Caller =
      this.reflector.getAllAndOverride<Caller | undefined>(CALLER, [context.getHandler(), context.getClass()]) ??
      'operator';
    if (equal(given, this.tokens.operator)) return true;
    if (caller === 'client' && equal(given, this.tokens.client)) return true;
    if (equal(given, this.tokens.client))
      throw fail('FORBIDDEN', 'This needs the operator token; the one sent is for routers');
    throw fail('UNAUTHENTICATED', 'This is not the token of an operator');
  }
}

/** In constant time: digests have one length, whatever was sent. */
const equal = (a: string, b: string): boolean => timingSafeEqual(digest(a), digest(b));
const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
