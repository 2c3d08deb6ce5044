import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { withConnection } from './connection.js';
import { applicationName } from './open.js';
import type { RunOptions } from './run-options.js';
import { Session } from './session.js';
import { ReplicationError } from './errors.js';
import type { Stream } from './stream.js';

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 3_000;
/* A run that held this long was a good one: the next failure starts with a short pause again. */
const GOOD_RUN_MS = 5_000;

const final = ['STREAM_ABSENT', 'STREAM_LOST', 'SUPERSEDED', 'NAME_INVALID'];

/**
 * Carries a prepared stream until the signal or a message ends it, whatever breaks in between: it goes on from the mark
 * when the databases are there again, or the target has the column that was missing. Throws ReplicationError when going
 * on would be wrong: STREAM_ABSENT, STREAM_LOST, SUPERSEDED (another process has taken the stream over).
 */
export async function runStream(stream: Stream, options: RunOptions = {}): Promise<'signal' | 'message'> {
  const holder = randomUUID();
  let first = true;
  let pause = FIRST_PAUSE_MS;
  while (!options.signal?.aborted) {
    let openedAt = Infinity;
    const onOpen = () => {
      openedAt = Date.now();
      options.onOpen?.();
    };
    try {
      return await Session.run(stream, options, { holder, first, onTake: () => (first = false), onOpen });
    } catch (error) {
      if (error instanceof ReplicationError && final.includes(error.code)) throw error;
      if (options.signal?.aborted) break;
      options.onProblem?.(error as Error);
      if (openedAt < Infinity) await note(stream, holder, error as Error);
      if (Date.now() - openedAt > GOOD_RUN_MS) pause = FIRST_PAUSE_MS;
      await sleep(pause * (0.5 + Math.random()), undefined, { signal: options.signal }).catch(() => {});
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }
  return 'signal';
}

/** For those who look at the stream from elsewhere; the next step forward clears it. */
async function note(stream: Stream, holder: string, error: Error): Promise<void> {
  const as = applicationName(stream);
  await withConnection(stream.target, { as }, (target) =>
    target.query('update banyan_replication.mark set problem = $3 where stream = $1 and holder = $2', [
      stream.name,
      holder,
      error.message,
    ]),
  ).catch(() => {});
}
