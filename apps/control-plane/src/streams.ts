import type { Side } from '@banyan/kernel';

/** How one direction of a context's replication stands. */
export interface StreamState {
  /** lost: it was there, and what its slot kept is gone; only a new copy helps. */
  kind: 'absent' | 'prepared' | 'lost';
  /** The bridge is reading from it now. */
  connected: boolean;
  /** Null: it began without one. */
  copy: { percent: number; rows: number; done: boolean } | null;
  lag: { bytes: number; ms: number } | null;
  /** What went wrong, and what to do about it. */
  problem: string | null;
}

/** The replication of contexts between their two databases, by direction: `from` names the source. */
export abstract class Streams {
  /** Throws what stands in the way, before anything is touched. */
  abstract preflight(context: string, from: Side): Promise<void>;
  /**
   * From now on the source keeps its log for this direction. With `backfill` the target is emptied and copied anew, if
   * it is still closed at `targetEpoch`. Without, source and target are equal: it is refused unless the source is
   * closed and the target has all that it wrote.
   */
  abstract prepare(context: string, from: Side, backfill: { targetEpoch: number } | null): Promise<void>;
  /** Takes slot, publication and mark away; what is not there is fine. */
  abstract drop(context: string, from: Side): Promise<void>;
  abstract state(context: string, from: Side): Promise<StreamState>;
}
