import { DomainError } from '@banyan/kernel';

/** A DomainError that survives Prisma, which turns any error with a code into one of its own and keeps only `meta`. */
abstract class DatabaseError extends DomainError {
  get meta(): { driverAdapterError: DomainError } {
    return { driverAdapterError: this };
  }
}

/**
 * The database could not be reached, or the connection broke. Answers 503.
 * `commitOutcome` is `unknown` only when the connection broke while COMMIT was under way: the writes may or may not
 * be there, so only an idempotent request may be sent again. Otherwise nothing was committed.
 */
export class DatabaseUnavailableError extends DatabaseError {
  constructor(
    readonly commitOutcome: 'not_committed' | 'unknown',
    cause: unknown,
  ) {
    const message =
      commitOutcome === 'unknown'
        ? 'The connection broke during the commit: its outcome is unknown'
        : 'The database is not available';
    super('DATABASE_UNAVAILABLE', 'unavailable', message, { retryAfterMs: 1000, commitOutcome }, { cause });
  }
}

/** Postgres gave the transaction up for another one (40001, 40P01) or for a changed plan: nothing was written, run it again. */
export class RetryableTransactionError extends DatabaseError {
  constructor(cause: unknown) {
    super('TRANSACTION_CONFLICT', 'unavailable', 'The transaction met another one', { retryAfterMs: 100 }, { cause });
  }
}

/** A statement ran into the transaction's time limit; the transaction was rolled back. */
export class StatementTimeoutError extends DatabaseError {
  constructor(cause: unknown) {
    super('DATABASE_TIMEOUT', 'unavailable', 'The database took too long', { retryAfterMs: 1000 }, { cause });
  }
}

/**
 * COMMIT answered ROLLBACK: a statement had failed and its error was swallowed. A bug of the caller, told instead of
 * reporting as done what was not. `cause` is the first error of the transaction.
 */
export class TransactionAbortedError extends Error {
  override readonly name = 'TransactionAbortedError';
  constructor(cause: unknown) {
    super('The transaction was rolled back at COMMIT: one of its statements had failed', { cause });
  }
}

export type Failure = 'connection' | 'conflict' | 'timeout';

const connectionCodes = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOENT', // a unix socket that is not there
  '57P01', // admin_shutdown
  '57P02', // crash_shutdown
  '57P03', // cannot_connect_now
  '57P05', // idle_session_timeout
  '25P03', // idle_in_transaction_session_timeout: Postgres has closed the connection
  '53300', // too_many_connections
]);

/* pg reports some broken connections by text alone. */
const connectionMessage =
  /^(Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error|Client was closed|Query read timeout|Cannot use a pool after calling end)/;

/** What kind of trouble an error of pg is, when it is trouble of the connection or of concurrency and not of the SQL. */
export function failureOf(error: unknown): Failure | undefined {
  if (error instanceof AggregateError) return failureOf(error.errors[0]); // both 127.0.0.1 and ::1 refused
  if (error instanceof DatabaseUnavailableError) return 'connection';
  if (!(error instanceof Error)) return undefined;
  const code = (error as { code?: unknown }).code;
  if (typeof code === 'string') {
    if (code.startsWith('08') || connectionCodes.has(code)) return 'connection';
    if (code === '40001' || code === '40P01' || isStalePlan(error)) return 'conflict';
    if (code === '57014') return 'timeout';
  }
  return connectionMessage.test(error.message) ? 'connection' : undefined;
}

/** A prepared statement outlived a migration or a pooler's DISCARD: the connection has to be replaced. */
export function isStalePlan(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, message } = error as Error & { code?: string };
  return code === '26000' || (code === '0A000' && /cached plan/.test(message));
}

export function typedError(failure: Failure, cause: unknown): DomainError {
  if (failure === 'conflict') return new RetryableTransactionError(cause);
  if (failure === 'timeout') return new StatementTimeoutError(cause);
  return cause instanceof DatabaseUnavailableError ? cause : new DatabaseUnavailableError('not_committed', cause);
}

/* Prisma's codes: unreachable, timed out, server closed the connection, no free connection, too many connections. */
const prismaCodes = new Set(['P1001', 'P1002', 'P1008', 'P1017', 'P2024', 'P2037']);

/* How Prisma's driver adapter calls a lost server. */
const adapterKinds = new Set([
  'DatabaseNotReachable',
  'ConnectionClosed',
  'SocketTimeout',
  'TooManyConnections',
  'TlsConnectionError',
]);

interface Clues {
  code?: unknown;
  kind?: unknown;
  originalCode?: unknown;
  cause?: unknown;
  meta?: { driverAdapterError?: unknown };
}

/**
 * The error of our language that a failure comes down to when the database is gone or busy, as opposed to unhappy with
 * a statement; undefined for anything else. Outside of a transaction Prisma wraps what it got, and its adapter
 * translates it, so each layer is looked at (5 at most: causes may loop).
 */
export function databaseFailure(error: unknown, depth = 5): DomainError | undefined {
  if (typeof error !== 'object' || error === null || depth === 0) return undefined;
  if (error instanceof DatabaseError) return error;
  const { code, kind, originalCode, cause, meta } = error as Clues;
  const failure = failureOf(error) ?? failureOf(Object.assign(new Error(), { code: originalCode }));
  if (failure) return typedError(failure, error);
  if ((typeof code === 'string' && prismaCodes.has(code)) || (typeof kind === 'string' && adapterKinds.has(kind)))
    return typedError('connection', error);
  return databaseFailure(cause, depth - 1) ?? databaseFailure(meta?.driverAdapterError, depth - 1);
}
