import { randomBytes } from 'node:crypto';
import { HttpException } from '@nestjs/common';
import { DomainError, type InputFault } from '@banyan/kernel';
import { trace } from '@opentelemetry/api';
import { type PlatformCode, describe, fail } from './errors.js';
import { databaseFailure } from '../database/errors.js';

/** RFC 9457 with our extension members. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  traceId: string;
  errors?: InputFault[];
  /** Facts that belong to the code, such as the SKU that is out of stock. */
  data?: Record<string, unknown>;
}

export const PROBLEM_JSON = 'application/problem+json';

/** A 503 without a better idea asks the client back after this long: a database restart takes about that. */
const defaultRetryAfterMs = 2_000;

/** Fastify's and Nest's own refusals, by the status they carry. */
const codeOfStatus: Record<number, [PlatformCode, string]> = {
  400: ['MALFORMED_REQUEST', 'The request could not be read'],
  401: ['UNAUTHENTICATED', 'Send a valid access token'],
  403: ['FORBIDDEN', 'You may not do this'],
  404: ['ROUTE_NOT_FOUND', 'There is nothing at this path'],
  405: ['METHOD_NOT_ALLOWED', 'This path does not answer this method'],
  408: ['REQUEST_TIMEOUT', 'The request took too long to arrive'],
  413: ['BODY_TOO_LARGE', 'The body is larger than this path takes'],
  414: ['URI_TOO_LONG', 'A part of the path is too long'],
  415: ['UNSUPPORTED_MEDIA_TYPE', 'Send application/json'],
  431: ['HEADERS_TOO_LARGE', 'The headers are too large'],
  503: ['UNAVAILABLE', 'Not available right now'],
};

/** Any thrown value as an error of our language. What nobody foresaw becomes INTERNAL and says nothing about itself. */
export function toDomainError(error: unknown): DomainError {
  if (DomainError.is(error)) return error;
  const gone = databaseFailure(error);
  if (gone) return gone;
  const status = error instanceof HttpException ? error.getStatus() : (error as { statusCode?: unknown })?.statusCode;
  const known = typeof status === 'number' ? codeOfStatus[status] : undefined;
  if (known) return fail(known[0], known[1], undefined, { cause: error });
  if (typeof status === 'number' && status >= 400 && status < 500)
    return fail('MALFORMED_REQUEST', 'The request could not be read', undefined, { cause: error });
  return fail('INTERNAL', 'The failure is logged under this traceId', undefined, { cause: error });
}

/** The trace that an answer belongs to: the active span's, else the request's own id. */
export const traceIdOf = (requestId?: string): string =>
  trace.getActiveSpan()?.spanContext().traceId ?? requestId ?? newTraceId();

export const newTraceId = (): string => randomBytes(16).toString('hex');

/** The problem document of an error, and the headers that go with its status. */
export function problemOf(error: DomainError, traceId: string): { problem: Problem; headers: Record<string, string> } {
  const { status, title, type } = describe(error.code, error.kind);
  const { errors, retryAfterMs, ...facts } = error.data ?? {};
  const hidden = status === 500;
  const problem: Problem = {
    type,
    title,
    status,
    detail: hidden ? 'The failure is logged under this traceId' : error.message,
    code: error.code,
    traceId,
  };
  if (errors) problem.errors = errors;
  if (!hidden && Object.keys(facts).length > 0) problem.data = facts;
  const headers: Record<string, string> = { 'content-type': PROBLEM_JSON, 'cache-control': 'no-store' };
  if (status === 503 || status === 429 || retryAfterMs !== undefined)
    headers['retry-after'] = String(Math.max(1, Math.ceil((retryAfterMs ?? defaultRetryAfterMs) / 1000)));
  if (status === 401 && error.code === 'UNAUTHENTICATED') headers['www-authenticate'] = 'Bearer';
  return { problem, headers };
}
