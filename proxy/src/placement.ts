import type { ConsistencyToken, Side } from '@banyan/kernel';
import type { ContextState } from './directory.js';

const there = ({ service }: ContextState, side: Side): Side => (service ? side : 'monolith');

/** The side that the stage gives a read to. `candidate`: the canary flag has chosen the service for this caller. */
export function sideOfRead(
  state: ContextState,
  { candidate, token }: { candidate: boolean; token?: ConsistencyToken },
): Side {
  // The caller has seen a later owner than we have heard of.
  if (token && token.epoch > state.epoch && state.epoch > 0) return there(state, token.side);
  switch (state.stage) {
    case 'live':
      return there(state, 'service');
    case 'canary':
      // Without a position in the log nobody can tell whether the copy has the caller's write.
      if (token && token.epoch === state.epoch && token.lsn === undefined) return there(state, state.owner);
      return candidate ? there(state, 'service') : 'monolith';
    default:
      return 'monolith';
  }
}

/** A command goes to the owner, whatever the stage: where this is out of date, the fence in the database says so. */
export const sideOfCommand = (state: ContextState): Side => there(state, state.owner);

export const otherSide = (side: Side): Side => (side === 'monolith' ? 'service' : 'monolith');
