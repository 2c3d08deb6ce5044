import { type ExecutionContext, createParamDecorator } from '@nestjs/common';
import { ApiHeader, ApiResponse } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { fail } from './errors.js';

/** The strong entity tag of a version. */
export const etagOf = (version: number): string => `"${version}"`;

/** Does an If-None-Match header name this tag? Weak comparison (RFC 9110, 13.1.2); `*` names any. */
export function matchesEtag(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  if (ifNoneMatch.trim() === '*') return true;
  return ifNoneMatch.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag);
}

/** A method decorator applied from a parameter decorator: Swagger only documents methods. */
export const onMethod =
  (...decorators: MethodDecorator[]): ParameterDecorator =>
  (target, key) => {
    if (key === undefined) return;
    const descriptor = Object.getOwnPropertyDescriptor(target, key);
    if (descriptor) for (const decorate of decorators) decorate(target, key, descriptor);
  };

const requestOf = (context: ExecutionContext): FastifyRequest => context.switchToHttp().getRequest<FastifyRequest>();

/** The version an If-Match header names: `"3"` and `W/"3"` are 3. Missing: 428. Anything else: 400. */
export function parseIfMatch(header: string | undefined): number {
  if (header === undefined) throw fail('IF_MATCH_REQUIRED', 'Send If-Match with the ETag of the version you have seen');
  const version = /^(?:W\/)?"([1-9]\d{0,14})"$/.exec(header.trim())?.[1];
  if (version === undefined) throw fail('IF_MATCH_INVALID', 'If-Match must be one ETag as this API hands it out: "3"');
  return Number(version);
}

/** Parameter: the version that the caller has seen, from If-Match. `@IfMatch() version: number` */
export const IfMatch = createParamDecorator(
  (_: undefined, context: ExecutionContext): number => parseIfMatch(requestOf(context).headers['if-match']),
  [
    onMethod(
      ApiHeader({
        name: 'If-Match',
        required: true,
        description: 'The ETag of the version you have seen',
        example: '"3"',
      }),
      ApiResponse({ status: 412, description: 'The version has moved on' }),
      ApiResponse({ status: 428, description: 'If-Match is missing' }),
    ),
  ],
);

/** The key an Idempotency-Key header carries: 1 to 255 visible ASCII characters. Missing or malformed: 400. */
export function parseIdempotencyKey(header: string | string[] | undefined): string {
  if (header === undefined)
    throw fail(
      'IDEMPOTENCY_KEY_REQUIRED',
      'Send an Idempotency-Key, new for each intention and the same for each retry',
    );
  if (typeof header !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(header))
    throw fail('IDEMPOTENCY_KEY_INVALID', 'An Idempotency-Key has 1 to 255 visible ASCII characters');
  return header;
}

const idempotencyKey = (required: boolean) =>
  createParamDecorator(
    (_: undefined, context: ExecutionContext): string | undefined => {
      const header = requestOf(context).headers['idempotency-key'];
      return header === undefined && !required ? undefined : parseIdempotencyKey(header);
    },
    [
      onMethod(
        ApiHeader({
          name: 'Idempotency-Key',
          required,
          description: 'New for each intention, the same for each retry; kept for 24 hours',
          schema: { type: 'string', minLength: 1, maxLength: 255, pattern: '^[!-~]+$' },
        }),
        ApiResponse({ status: 422, description: 'The key was used with another body' }),
      ),
    ],
  );

const requiredKey = idempotencyKey(true);
const optionalKey = idempotencyKey(false);

/**
 * Parameter: the request's Idempotency-Key. `@IdempotencyKey() key: string`, or
 * `@IdempotencyKey({ optional: true }) key: string | undefined`.
 */
export const IdempotencyKey = (options: { optional?: boolean } = {}): ParameterDecorator =>
  options.optional ? optionalKey() : requiredKey();
