import { DomainError } from '@banyan/kernel';
import type { Envelope, Reply } from './envelope.js';

/** Codes of the bus itself; contracts add their own. */
export const INPUT_INVALID = 'INPUT_INVALID';
export const OPERATION_UNKNOWN = 'OPERATION_UNKNOWN';
export const CONTEXT_UNKNOWN = 'CONTEXT_UNKNOWN';
export const DEADLINE_EXCEEDED = 'DEADLINE_EXCEEDED';
/** The side that was asked has not yet got what the caller has written. */
export const CONTEXT_BEHIND = 'CONTEXT_BEHIND';
/** Refused by the fence: nothing has run, so the same message may be sent to the owner. */
export const CONTEXT_MOVED = 'CONTEXT_MOVED';
/** The message never got there: nothing has run. */
export const CONTEXT_UNREACHABLE = 'CONTEXT_UNREACHABLE';
/** The connection broke while the answer was awaited: nobody knows whether it has run. */
export const UPSTREAM_UNAVAILABLE = 'UPSTREAM_UNAVAILABLE';

/** A message that failed with this code has not run, wherever it was: it may be sent again as it is. */
export const neverRan = (code: string): boolean => code === CONTEXT_MOVED || code === CONTEXT_UNREACHABLE;

/** The context is owned elsewhere: not a fault, and the owner goes on with what is left. */
export const hasMoved = (error: unknown): boolean => DomainError.is(error) && error.code === CONTEXT_MOVED;

export const moved = (context: string, cause?: unknown): DomainError =>
  new DomainError(
    CONTEXT_MOVED,
    'unavailable',
    `${context} is owned elsewhere just now`,
    { context, retryAfterMs: 1000 },
    { cause },
  );

export const unreachable = (context: string, why: string, cause?: unknown): DomainError =>
  new DomainError(
    CONTEXT_UNREACHABLE,
    'unavailable',
    `${context} cannot be reached: ${why}`,
    { context, retryAfterMs: 1000 },
    { cause },
  );

/** A failure as an answer. */
export const refusal = ({ code, kind, message, data }: DomainError): Reply & { ok: false } => ({
  ok: false,
  error: { code, kind, message, data },
});

/** The answer, or a failure when `until` comes first. */
export async function within(
  until: number,
  { context }: Pick<Envelope, 'context'>,
  answer: Promise<Reply>,
): Promise<Reply> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Reply>((resolve) => {
    timer = setTimeout(
      () => resolve(refusal(new DomainError(DEADLINE_EXCEEDED, 'unavailable', `No answer from ${context} in time`))),
      Math.max(0, until - Date.now()),
    );
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
