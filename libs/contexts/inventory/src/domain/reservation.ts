import type { Movement, StockLine } from './stock-item.js';

/**
 * An order's hold on stock. Closed (released, expired) is for ever: an order that comes back is refused, so that a
 * late reserve cannot hold goods nobody will pay for.
 */
export interface Reservation {
  readonly orderId: string;
  readonly status: 'held' | 'committed' | 'released' | 'expired';
  /** Merged, in SKU order. Empty for an order that was released before it reserved anything. */
  readonly lines: readonly StockLine[];
  readonly expiresAt: Date;
}

/** What is to be done: the reservation as it will be and how its goods move, or nothing, or a refusal. */
export type Decision =
  | { readonly outcome: 'change'; readonly to: Reservation; readonly movement: Movement }
  | { readonly outcome: 'unchanged' }
  | { readonly outcome: 'refused'; readonly why: 'closed' | 'unknown' };

const unchanged: Decision = { outcome: 'unchanged' };
const refused = (why: 'closed' | 'unknown'): Decision => ({ outcome: 'refused', why });
const change = (reservation: Reservation, status: Reservation['status'], movement: Movement): Decision => ({
  outcome: 'change',
  to: { ...reservation, status },
  movement,
});

/** `lines` must be merged; that the stock is there is checked where the rows are locked. */
export function reserve(known: Reservation | undefined, asked: Omit<Reservation, 'status'>): Decision {
  if (!known) return change({ ...asked, status: 'held' }, 'held', 'hold');
  return known.status === 'held' || known.status === 'committed' ? unchanged : refused('closed');
}

/** A hold whose time is up still commits as long as nothing has expired it: the goods are there. */
export function commit(known: Reservation | undefined): Decision {
  if (!known) return refused('unknown');
  if (known.status === 'committed') return unchanged;
  return known.status === 'held' ? change(known, 'committed', 'sell') : refused('closed');
}

/** Held goods become available again, sold goods come back. An unknown order: the caller writes the `tombstone`. */
export function release(known: Reservation): Decision {
  if (known.status === 'held') return change(known, 'released', 'unhold');
  return known.status === 'committed' ? change(known, 'released', 'takeBack') : unchanged;
}

/** What is remembered of an order that was released before it reserved. */
export const tombstone = (orderId: string, now: Date): Reservation => ({
  orderId,
  status: 'released',
  lines: [],
  expiresAt: now,
});

/** Only a hold whose time is up expires. */
export function expire(known: Reservation | undefined, now: Date): Decision {
  if (known?.status !== 'held' || known.expiresAt > now) return unchanged;
  return change(known, 'expired', 'unhold');
}
