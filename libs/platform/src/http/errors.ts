import { DomainError, type ErrorKind } from '@banyan/kernel';

/** The one mapping from a kind of failure to an HTTP status (RFC 9110). */
export const statusOfKind: Record<ErrorKind, number> = {
  invalid: 400,
  unauthenticated: 401,
  forbidden: 403,
  not_found: 404,
  conflict: 409,
  stale: 412,
  too_large: 413,
  unsupported: 415,
  mismatch: 422,
  precondition_required: 428,
  too_many: 429,
  unavailable: 503,
  internal: 500,
};

interface RegisteredError {
  kind: ErrorKind;
  title: string;
  /** Only where HTTP is finer than the kinds (405, 408, 414, 431). */
  status?: number;
}

/** Every code that is not a context's own: those stand in the contracts. A test finds each that is missing here. */
export const errorRegistry = {
  MALFORMED_REQUEST: { kind: 'invalid', title: 'The request is not valid HTTP, or is ambiguous' },
  MALFORMED_JSON: { kind: 'invalid', title: 'The body is not valid JSON' },
  JSON_TOO_DEEP: { kind: 'invalid', title: 'The body nests too deeply' },
  INPUT_INVALID: { kind: 'invalid', title: 'The input is invalid' },
  CURSOR_INVALID: { kind: 'invalid', title: 'The cursor was not handed out by this list' },
  IF_MATCH_INVALID: { kind: 'invalid', title: 'If-Match does not name a version' },
  IDEMPOTENCY_KEY_REQUIRED: { kind: 'invalid', title: 'The Idempotency-Key header is missing' },
  IDEMPOTENCY_KEY_INVALID: { kind: 'invalid', title: 'The Idempotency-Key header is invalid' },
  SIGNATURE_INVALID: { kind: 'unauthenticated', title: 'The webhook signature does not hold' },
  UNAUTHENTICATED: { kind: 'unauthenticated', title: 'A valid access token is needed' },
  FORBIDDEN: { kind: 'forbidden', title: 'The role does not allow this' },
  ROUTE_NOT_FOUND: { kind: 'not_found', title: 'There is nothing at this path' },
  METHOD_NOT_ALLOWED: { kind: 'invalid', status: 405, title: 'The path does not answer this method' },
  REQUEST_TIMEOUT: { kind: 'invalid', status: 408, title: 'The request took too long to arrive' },
  BODY_TOO_LARGE: { kind: 'too_large', title: 'The body is too large' },
  URI_TOO_LONG: { kind: 'invalid', status: 414, title: 'The path is too long' },
  UNSUPPORTED_MEDIA_TYPE: { kind: 'unsupported', title: 'The body has a type that this path does not read' },
  UNSUPPORTED_ENCODING: { kind: 'unsupported', title: 'The body is compressed' },
  IF_MATCH_REQUIRED: { kind: 'precondition_required', title: 'The If-Match header is missing' },
  RATE_LIMITED: { kind: 'too_many', title: 'Too many requests' },
  HEADERS_TOO_LARGE: { kind: 'invalid', status: 431, title: 'The headers are too large' },
  IDEMPOTENCY_KEY_REUSED: { kind: 'mismatch', title: 'The Idempotency-Key was used with another request' },
  IDEMPOTENCY_IN_PROGRESS: { kind: 'conflict', title: 'A request with this Idempotency-Key is still running' },
  OPERATION_UNKNOWN: { kind: 'not_found', title: 'The context has no such operation' },
  FLAG_UNKNOWN: { kind: 'not_found', title: 'There is no such flag' },
  FLAGS_READ_ONLY: { kind: 'conflict', title: 'The flags are kept elsewhere and cannot be set from here' },
  CONTEXT_UNKNOWN: { kind: 'unavailable', title: 'Nothing serves the context' },
  CONTEXT_UNREACHABLE: { kind: 'unavailable', title: 'The process that serves the context does not answer' },
  CONTEXT_BEHIND: { kind: 'unavailable', title: 'The side that was asked has not got your last write yet' },
  STEP_REFUSED: { kind: 'conflict', title: 'The context cannot take this step from where it is' },
  DIVERGENCE_UNKNOWN: { kind: 'not_found', title: 'There is no such divergence' },
  CONTEXT_MOVED: { kind: 'unavailable', title: 'The context is being handed over' },
  DEADLINE_EXCEEDED: { kind: 'unavailable', title: 'The answer did not come in time' },
  TRANSACTION_CONFLICT: { kind: 'unavailable', title: 'The transaction met another one' },
  DATABASE_TIMEOUT: { kind: 'unavailable', title: 'The database took too long' },
  DATABASE_UNAVAILABLE: { kind: 'unavailable', title: 'The database does not answer' },
  UPSTREAM_UNAVAILABLE: { kind: 'unavailable', title: 'A system this depends on does not answer' },
  UNAVAILABLE: { kind: 'unavailable', title: 'Not available right now' },
  INTERNAL: { kind: 'internal', title: 'Something went wrong on our side' },
} satisfies Record<string, RegisteredError>;

export type PlatformCode = keyof typeof errorRegistry;

/** An error of the platform's own vocabulary, ready to throw. */
export function fail(
  code: PlatformCode,
  message: string,
  data?: DomainError['data'],
  options?: ErrorOptions,
): DomainError {
  return new DomainError(code, errorRegistry[code].kind, message, data, options);
}

/** Status and title of an error: from the registry when it knows the code, else from the kind and the code's words. */
export function describe(code: string, kind: ErrorKind): { status: number; title: string; type: string } {
  const known: RegisteredError | undefined = Object.hasOwn(errorRegistry, code)
    ? errorRegistry[code as PlatformCode]
    : undefined;
  return {
    status: known?.status ?? statusOfKind[kind],
    title: known?.title ?? titleOf(code),
    type: `urn:banyan:problem:${code.toLowerCase().replaceAll('_', '-')}`,
  };
}

/** OUT_OF_STOCK -> "Out of stock". */
export const titleOf = (code: string): string => {
  const words = code.toLowerCase().replaceAll('_', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
};
