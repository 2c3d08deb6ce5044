/** What kind of failure it is; the edge maps a kind to an HTTP status, once. */
export const errorKinds = [
  'invalid',
  'unauthenticated',
  'forbidden',
  'not_found',
  'conflict',
  'stale',
  'too_large',
  'unsupported',
  'mismatch',
  'precondition_required',
  'too_many',
  'unavailable',
  'internal',
] as const;
export type ErrorKind = (typeof errorKinds)[number];

/** One thing wrong with an input, as RFC 9457 clients expect it: where (JSON pointer, RFC 6901) and what. */
export interface InputFault {
  pointer: string;
  detail: string;
}

/**
 * A failure that is part of the language: it has a code that callers may branch on, and it crosses process
 * boundaries unchanged. Anything else that is thrown is a bug and becomes INTERNAL.
 */
export class DomainError extends Error {
  override readonly name = 'DomainError';
  constructor(
    readonly code: string,
    readonly kind: ErrorKind,
    message: string,
    /** Facts for the caller, JSON only, nothing personal. */
    readonly data?: { retryAfterMs?: number; errors?: InputFault[]; [fact: string]: unknown },
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  static is(error: unknown): error is DomainError {
    return error instanceof DomainError;
  }
}

/** Why, in words, of whatever was thrown. When no address answers, Node's error has a code and no message. */
export function reasonOf(thrown: unknown): string {
  const { message, code } = Object(thrown) as Partial<NodeJS.ErrnoException>;
  return message || code || String(thrown);
}
