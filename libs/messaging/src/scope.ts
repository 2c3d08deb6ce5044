import { AsyncLocalStorage } from 'node:async_hooks';
import { type Actor, anonymous } from '@banyan/kernel';
import type { ReplyMeta } from './envelope.js';

/** What surrounds the calls made while one request, event or job is served. */
export interface CallScope {
  actor: Actor;
  /** Latest moment at which somebody still waits, ms since the epoch. */
  deadline?: number;
  /** Set inside a transaction: the context that holds it. No call may leave from there. */
  writing?: string;
  /** Set inside a transaction: runs something once it has committed. */
  afterCommit?: (fn: () => void) => void;
  /** What the commands made in this scope told about themselves, for the edge to put into headers. */
  seen: { replayed: boolean; consistency: Record<string, string> };
}

const storage = new AsyncLocalStorage<CallScope>();

export function newScope(actor: Actor, deadline?: number): CallScope {
  return { actor, deadline, seen: { replayed: false, consistency: {} } };
}

/** Runs `fn` so that the calls it makes act for `scope.actor` and end by `scope.deadline`. */
export const runInScope = <T>(scope: CallScope, fn: () => T): T => storage.run(scope, fn);

export const currentScope = (): CallScope | undefined => storage.getStore();

export const currentActor = (): Actor => storage.getStore()?.actor ?? anonymous;

export function noteReply(scope: CallScope, context: string, meta: ReplyMeta): void {
  if (meta.replayed) scope.seen.replayed = true;
  if (meta.lsn) scope.seen.consistency[context] = meta.lsn;
}

/** Runs `fn` as a message from outside would find it: with no scope. */
export const outOfScope = <T>(fn: () => T): T => storage.exit(fn);
