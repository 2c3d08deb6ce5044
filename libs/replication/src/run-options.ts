import type pg from 'pg';
import type { SharedLog } from './shared-log.js';

/** Statements in the transaction that is being applied, with everything before the message in it already. */
export interface TargetTransaction {
  query<R extends pg.QueryResultRow = Record<string, unknown>>(
    text: string,
    values?: readonly unknown[],
  ): Promise<pg.QueryResult<R>>;
}

/**
 * Called for a transactional message in the log, in the order of the log. What it writes is committed together with the
 * mark, so it happens once. 'end': the stream ends after this transaction. When it throws, nothing of the transaction
 * stays and it is called again.
 */
export type MessageHandler = (tx: TargetTransaction, content: string, lsn: bigint) => Promise<'end' | void>;

export interface StreamProgress {
  /** Rows written in this run, copied ones included. */
  rows: number;
  /** Rows copied in this run. */
  copied: number;
  backfilling: boolean;
  /** Everything that the source has told of is in the target. */
  caughtUp: boolean;
  applied: bigint;
}

export interface RunOptions {
  signal?: AbortSignal;
  /** Take the log from there, and publish it if nobody else does; otherwise from the slot itself. */
  log?: SharedLog;
  /** By the prefix of the message. */
  onMessage?: Readonly<Record<string, MessageHandler>>;
  /** About twice a second. */
  onProgress?: (progress: StreamProgress) => void;
  /** It broke, and is tried again after a pause. */
  onProblem?: (error: Error) => void;
  /** It runs (again). */
  onOpen?: () => void;
  onWarning?: (message: string) => void;
  /** At most so many rows in a chunk of the backfill; 10,000 by default. */
  chunkRows?: number;
}
