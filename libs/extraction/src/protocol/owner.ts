import type { Side } from '@banyan/kernel';

/**
 * The one row of `banyan_owner`: what a database knows about who may write. These functions are the SQL functions of the
 * same names, so that the protocol can be searched exhaustively; a test compares the two.
 */
export interface OwnerRow {
  readonly side: Side;
  /** May this side write? */
  readonly open: boolean;
  /** Of the last change of owner that this side took part in. */
  readonly epoch: number;
  /** It refuses to open below this one. */
  readonly minEpoch: number;
}

/** What closing writes into the log, behind all of the side's writes. */
export interface HandoverMessage {
  readonly epoch: number;
  readonly to: Side;
}

export const otherSide = (side: Side): Side => (side === 'monolith' ? 'service' : 'monolith');

/** Ends the time of the owner, if it is the owner at `expected`. null: refused. */
export function close(row: OwnerRow, expected: number, to: Side): { row: OwnerRow; message: HandoverMessage } | null {
  if (!row.open || row.epoch !== expected || row.side === to) return null;
  const epoch = expected + 1;
  return { row: { ...row, open: false, epoch }, message: { epoch, to } };
}

/** Opens a side: what the bridge does with the message, together with its mark. null: refused, come again or called off. */
export function open(row: OwnerRow, epoch: number): OwnerRow | null {
  if (row.open || row.epoch >= epoch || row.minEpoch > epoch) return null;
  return { ...row, open: true, epoch };
}

/** First half of calling a hand-over off: the side will not open below `below`. null: too late, it has opened since. */
export function bar(row: OwnerRow, below: number): OwnerRow | null {
  if (row.open || row.epoch >= below - 1) return null;
  return { ...row, minEpoch: Math.max(row.minEpoch, below) };
}

/** Second half, only after `bar` on the other side: opens the side again that was closed at `closedAt`. null: refused. */
export function reopen(row: OwnerRow, closedAt: number): OwnerRow | null {
  if (row.open || row.epoch !== closedAt) return null;
  return { ...row, open: true, epoch: closedAt + 1 };
}
