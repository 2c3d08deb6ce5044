import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import type { Actor } from '@banyan/kernel';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { type Observable, from, lastValueFrom } from 'rxjs';
import { actorOf } from './actor.js';
import { ETAG } from './answers.js';
import { etagOf, matchesEtag } from './headers.js';

/** What a call learned that its caller should be told, besides the body. */
export interface AnswerFacts {
  /** The body is the stored answer of an earlier request with this idempotency key. */
  replayed?: boolean;
  /** Consistency tokens of what this request has written. */
  consistency?: string;
  /** The context whose owner is changing, when nothing of the request has run: it may be sent again as it is. */
  fenced?: string;
  /** The context that has not got the caller's last write here: the owner has. */
  behind?: string;
}

export interface ScopeOptions {
  /** Runs a handler, argument pipes included, in a scope of the app's: `next` must be called once, and awaited. */
  requestScope?: (request: FastifyRequest, actor: Actor, next: () => Promise<unknown>) => Promise<unknown>;
  /** Read inside that scope once the handler is done, or has failed with `error`. */
  answerFacts?: (error?: unknown) => AnswerFacts | undefined;
}

/** Runs each handler in the request's scope and puts what goes beside the body into headers. */
@Injectable()
export class AnswerInterceptor implements NestInterceptor {
  constructor(private readonly options: ScopeOptions) {}

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    if (context.getType() !== 'http') return next.handle();
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const reply = context.switchToHttp().getResponse<FastifyReply>();
    const { requestScope, answerFacts } = this.options;
    const run = async (): Promise<unknown> => {
      let failure: unknown;
      try {
        return await lastValueFrom(next.handle(), { defaultValue: undefined });
      } catch (error) {
        failure = error;
        throw error;
      } finally {
        const facts = answerFacts?.(failure);
        if (facts?.replayed) reply.header('idempotent-replayed', 'true');
        if (facts?.consistency) reply.header('banyan-consistency', facts.consistency);
        if (facts?.fenced) reply.header('banyan-fenced', facts.fenced);
        if (facts?.behind) reply.header('banyan-behind', facts.behind);
      }
    };
    const result = requestScope ? requestScope(request, actorOf(request), run) : run();
    const tagged = Reflect.getMetadata(ETAG, context.getHandler()) === true;
    return from(tagged ? result.then((body) => withEtag(body, request, reply)) : result);
  }
}

function withEtag(body: unknown, request: FastifyRequest, reply: FastifyReply): unknown {
  const version = (body as { version?: unknown } | undefined)?.version;
  if (typeof version !== 'number') return body;
  const etag = etagOf(version);
  reply.header('etag', etag);
  const reads = request.method === 'GET' || request.method === 'HEAD';
  if (!reads) return body;
  // May be kept, must be asked about again; and what was answered to one user is not for a shared cache.
  reply.header('cache-control', request.headers.authorization === undefined ? 'no-cache' : 'private, no-cache');
  if (!matchesEtag(request.headers['if-none-match'], etag)) return body;
  reply.code(304);
  return undefined;
}
