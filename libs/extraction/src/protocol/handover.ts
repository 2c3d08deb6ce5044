import type { Side } from '@banyan/kernel';
import { type OwnerRow, otherSide } from './owner.js';

/** The rows of both databases, read one after the other: they need not be of the same instant. */
export type OwnerRows = Readonly<Record<Side, OwnerRow>>;

export interface HandoverFacts {
  /** Bridge, the other side's process and the way back are as they have to be. */
  readonly ready: boolean;
  /** Nobody opened within the time that a hand-over may take. */
  readonly overdue: boolean;
}

/** The next move of whoever coordinates. Every one is a compare-and-set: a caller that was delayed is refused. */
export type HandoverAction =
  | { readonly do: 'nothing' }
  /** The wanted side is not the owner, and the hand-over cannot begin yet. */
  | { readonly do: 'prepare' }
  | { readonly do: 'close'; readonly side: Side; readonly expected: number; readonly to: Side }
  /** The message is on its way; the bridge opens the other side. */
  | { readonly do: 'wait' }
  | { readonly do: 'bar'; readonly side: Side; readonly below: number }
  | { readonly do: 'reopen'; readonly side: Side; readonly closedAt: number };

/**
 * The side that owns the context, or did last: the open one, or else the one that was closed at the higher epoch. Both
 * look open when a hand-over passed between two reads; then the higher epoch is the newer news.
 */
export function sourceOf({ monolith, service }: Readonly<Record<Side, Pick<OwnerRow, 'open' | 'epoch'>>>): Side {
  if (monolith.open !== service.open) return monolith.open ? 'monolith' : 'service';
  return monolith.epoch >= service.epoch ? 'monolith' : 'service';
}

/** Who may write, as far as these rows tell; null while the owner is changing. */
export function ownerOf(rows: OwnerRows): Side | null {
  const side = sourceOf(rows);
  return rows[side].open ? side : null;
}

/**
 * What to do next so that `want` becomes the owner. It remembers nothing: the rows say how far a hand-over has come,
 * so any coordinator can take over from any other at any instant.
 */
export function nextStep(rows: OwnerRows, want: Side, facts: HandoverFacts): HandoverAction {
  const owner = ownerOf(rows);
  if (owner === want) return { do: 'nothing' };
  if (owner) {
    if (!facts.ready) return { do: 'prepare' };
    return { do: 'close', side: owner, expected: rows[owner].epoch, to: want };
  }
  const from = sourceOf(rows);
  const to = otherSide(from);
  const closedAt = rows[from].epoch;
  // Barred already: the message will be refused, so the only way is back.
  if (rows[to].minEpoch > closedAt) return { do: 'reopen', side: from, closedAt };
  if (facts.overdue || want === from) return { do: 'bar', side: to, below: closedAt + 1 };
  return { do: 'wait' };
}
