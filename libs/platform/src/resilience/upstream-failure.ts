import { DomainError } from '@banyan/kernel';

/** Why a call out did not get an answer. */
export type UpstreamReason = 'timeout' | 'network' | 'status' | 'answer' | 'open' | 'full' | 'cancelled';

/** Retry-After for callers of ours when somebody we depend on is away. */
const retryAfterMs = 2_000;

/** Another system did not answer. Becomes 503 at the edge. */
export class UpstreamFailure extends DomainError {
  constructor(
    readonly reason: UpstreamReason,
    /** May the other side have acted on it? Only `false` lets a caller treat the call as never made. */
    readonly mayHaveHappened: boolean,
    cause?: unknown,
  ) {
    super(
      'UPSTREAM_UNAVAILABLE',
      'unavailable',
      'A system this depends on does not answer',
      { retryAfterMs },
      { cause },
    );
  }
}
