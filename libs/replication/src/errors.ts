export type ReplicationErrorCode =
  | 'SOURCE_UNREACHABLE'
  | 'TARGET_UNREACHABLE'
  | 'NAME_INVALID'
  | 'SAME_PLACE'
  | 'SERVER_TOO_OLD'
  | 'WAL_LEVEL'
  | 'NO_FREE_SLOT'
  | 'PRIVILEGE'
  | 'NO_TABLES'
  | 'TABLE_UNKNOWN'
  | 'NO_PRIMARY_KEY'
  | 'REPLICA_IDENTITY'
  | 'UNLOGGED'
  | 'TARGET_TABLE_MISSING'
  | 'TARGET_COLUMN_MISSING'
  | 'TARGET_COLUMN_REQUIRED'
  | 'TARGET_KEY'
  | 'MAPPING'
  | 'STREAM_ABSENT'
  | 'STREAM_LOST'
  | 'STREAM_BUSY'
  | 'LOG_STREAM'
  | 'SUPERSEDED';

/** What stands in the way, and what to do about it. */
export class ReplicationError extends Error {
  override readonly name = 'ReplicationError';
  constructor(
    readonly code: ReplicationErrorCode,
    readonly detail: string,
    readonly next: string,
    options?: ErrorOptions,
  ) {
    super(`${detail} ${next}`, options);
  }
}

export function unreachable(side: 'source' | 'target', error: unknown): ReplicationError {
  // An AggregateError (no address answers) has no message of its own.
  const why = (error as Error).message || (error as NodeJS.ErrnoException).code || 'no answer';
  return new ReplicationError(
    side === 'source' ? 'SOURCE_UNREACHABLE' : 'TARGET_UNREACHABLE',
    `The ${side} cannot be reached: ${why}.`,
    'Check its URL, and that it runs.',
    { cause: error },
  );
}
