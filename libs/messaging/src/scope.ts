import { AsyncLocalStorage } from 'node:async_hooks';
import {
  type Actor,
  type ConsistencyToken,
  type ConsistencyTokens,
  type Side,
  anonymous,
  laterToken,
} from '@banyan/kernel';
import type { Envelope, ReplyMeta } from './envelope.js';

/** What surrounds the calls made while one request, event or job is served. */
export interface CallScope {
  actor: Actor;
  /** Latest moment at which somebody still waits, ms since the epoch. */
  deadline?: number;
  /** What the edge decided: which side reads a context. It holds for every call of the request, wherever it is made. */
  placement?: Readonly<Record<string, Side>>;
  /** What the caller has written, before and in this scope: reads must not be older. */
  consistency?: ConsistencyTokens;
  /** Set inside a transaction: the context that holds it. No call may leave from there. */
  writing?: string;
  /** Set inside a transaction: runs something once it has committed. */
  afterCommit?: (fn: () => void) => void;
  /** What the commands made in this scope told about themselves, for the edge to put into headers. */
  seen: Seen;
}

interface Seen {
  replayed: boolean;
  consistency: Record<string, ConsistencyToken>;
  /** A command has run, or may have: the request must not be sent again as if it had not. */
  ran: boolean;
}

const storage = new AsyncLocalStorage<CallScope>();

export function newScope(actor: Actor, deadline?: number): CallScope {
  return { actor, deadline, seen: { replayed: false, consistency: {}, ran: false } };
}

/** The scope of a message that came from another process: what its sender's calls had. */
export function scopeOf({ actor, deadline, placement, consistency }: Envelope): CallScope {
  return { ...newScope(actor, deadline), placement, consistency };
}

/** Runs `fn` so that the calls it makes act for `scope.actor` and end by `scope.deadline`. */
export const runInScope = <T>(scope: CallScope, fn: () => T): T => storage.run(scope, fn);

export const currentScope = (): CallScope | undefined => storage.getStore();

export const currentActor = (): Actor => storage.getStore()?.actor ?? anonymous;

export function noteReply(scope: CallScope, context: string, { replayed, token }: ReplyMeta): void {
  if (replayed) scope.seen.replayed = true;
  if (!token) return;
  const later = laterToken(scope.consistency?.[context], token);
  scope.seen.consistency[context] = later;
  scope.consistency = { ...scope.consistency, [context]: later };
}

/** Runs `fn` as a message from outside would find it: with no scope. */
export const outOfScope = <T>(fn: () => T): T => storage.exit(fn);
