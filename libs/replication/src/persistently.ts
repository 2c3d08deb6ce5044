import { setTimeout as sleep } from 'node:timers/promises';
import { ReplicationError, type ReplicationErrorCode } from './errors.js';

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 3_000;
/* A run that held this long was a good one: the next failure starts with a short pause again. */
const GOOD_RUN_MS = 5_000;

const final: readonly ReplicationErrorCode[] = ['STREAM_ABSENT', 'STREAM_LOST', 'SUPERSEDED', 'NAME_INVALID'];

/**
 * Does the work again, after longer and longer pauses, until it ends by itself or the signal ends it (undefined). Throws
 * only when going on would be wrong. The work says when it was `opened`.
 */
export async function persistently<T>(
  work: (opened: () => void) => Promise<T>,
  {
    signal,
    onProblem,
  }: { signal: AbortSignal | undefined; onProblem: (error: Error, wasOpen: boolean) => Promise<void> | void },
): Promise<T | undefined> {
  let pause = FIRST_PAUSE_MS;
  while (!signal?.aborted) {
    let openedAt = Infinity;
    try {
      return await work(() => (openedAt = Date.now()));
    } catch (error) {
      if (error instanceof ReplicationError && final.includes(error.code)) throw error;
      if (signal?.aborted) break;
      await onProblem(error as Error, openedAt < Infinity);
      if (Date.now() - openedAt > GOOD_RUN_MS) pause = FIRST_PAUSE_MS;
      await sleep(pause * (0.5 + Math.random()), undefined, { signal }).catch(() => {});
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }
  return undefined;
}
