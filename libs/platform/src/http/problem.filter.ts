import { type ArgumentsHost, Catch, type ExceptionFilter, Logger } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { DomainError, reasonOf } from '@banyan/kernel';
import { type Observable, throwError } from 'rxjs';
import { fail } from './errors.js';
import { problemOf, toDomainError, traceIdOf } from './problem.js';
import type { RouteTable } from './routes.js';

/** The only place where a failure becomes an HTTP answer. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  private readonly logger = new Logger('Http');

  constructor(private readonly routes: RouteTable) {}

  catch(thrown: unknown, host: ArgumentsHost): Observable<never> | undefined {
    // To another process of ours it goes as it is: the caller makes an answer of it.
    if (host.getType() === 'rpc') return throwError(() => failureOf(toDomainError(thrown)));
    if (host.getType() !== 'http') throw thrown;
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    const allowed = request.is404 ? this.routes.methodsAt(request.url) : [];
    const error =
      allowed.length > 0
        ? fail('METHOD_NOT_ALLOWED', `${request.method} is not answered here; ${allowed.join(', ')} is`)
        : toDomainError(thrown);
    const { problem, headers } = problemOf(error, traceIdOf(request.id));
    if (problem.status >= 500) this.report(problem.status, problem.traceId, thrown, error);
    if (allowed.length > 0) headers['allow'] = allowed.join(', ');
    // Bytes, because Fastify adds a charset to text, and JSON has none (RFC 8259).
    const body = Buffer.from(JSON.stringify(problem));
    // Errors of Nest middleware come with Node's own response.
    if (!('code' in reply && typeof reply.code === 'function')) {
      const raw = reply as unknown as import('node:http').ServerResponse;
      if (raw.headersSent) raw.destroy();
      else raw.writeHead(problem.status, headers).end(body);
      return undefined;
    }
    if (reply.sent || reply.raw.headersSent) {
      // Half an answer is out: cutting the connection is the only way to say that the rest will not come.
      reply.raw.destroy();
      return undefined;
    }
    // The rest of an unread body must not hold the connection open.
    if (!request.raw.complete) headers['connection'] = 'close';
    void reply.code(problem.status).headers(headers).send(body);
    return undefined;
  }

  private report(status: number, traceId: string, thrown: unknown, error: DomainError): void {
    const cause = DomainError.is(thrown) ? (thrown.cause ?? thrown) : thrown;
    const stack = cause instanceof Error ? cause.stack : String(cause);
    if (status === 500) this.logger.error({ msg: 'request failed', traceId, code: error.code }, stack);
    else this.logger.warn({ msg: 'request refused', traceId, code: error.code, reason: reasonOf(cause) });
  }
}

const failureOf = ({ code, kind, message, data }: DomainError) => ({ code, kind, message, data });
