import { randomUUID } from 'node:crypto';
import { withConnection } from './connection.js';
import { ReplicationError } from './errors.js';
import { applicationName } from './open.js';
import { persistently } from './persistently.js';
import type { RunOptions } from './run-options.js';
import { Session, type SessionRun } from './session.js';
import { watchSlot } from './slot-watch.js';
import type { Stream } from './stream.js';

/**
 * Carries a prepared stream until the signal or a message ends it, whatever breaks in between: it goes on from the mark
 * when the databases are there again, or the target has the column that was missing. Throws ReplicationError when going
 * on would be wrong: STREAM_ABSENT, STREAM_LOST, SUPERSEDED (another process has taken the stream over).
 */
export async function runStream(stream: Stream, options: RunOptions = {}): Promise<'signal' | 'message'> {
  if (!options.log) return follow(stream, options);
  const { SharedRun } = await import('./shared-run.js');
  const shared = new SharedRun(stream, options.log, options);
  try {
    const { signal } = shared;
    const onOpen = () => shared.opened('session');
    const onProblem = (error: Error) => shared.broke('session', error);
    return await follow(stream, { ...options, signal, onOpen, onProblem }, shared);
  } finally {
    await shared.end();
  }
}

interface Sharing {
  /** The mark was seen, or the target is away: the slot may be read without it. */
  publish(): void;
  session: Pick<SessionRun, 'shared' | 'mayStop'>;
}

async function follow(stream: Stream, options: RunOptions, sharing?: Sharing): Promise<'signal' | 'message'> {
  const holder = randomUUID();
  const over = new AbortController();
  let first = true;
  let begun = false;
  // The mark was seen, or the target is away: then the slot is looked after without it.
  const begin = () => {
    if (!begun && options.log?.publish !== false) void watchSlot(stream, options.onWarning, over.signal);
    begun = true;
    sharing?.publish();
  };
  const onTake = () => {
    first = false;
    begin();
  };
  const ended = await persistently(
    (opened) =>
      Session.run(stream, options, {
        holder,
        first,
        onTake,
        onOpen: () => {
          opened();
          options.onOpen?.();
        },
        ...sharing?.session,
      }),
    {
      signal: options.signal,
      onProblem: async (error, wasOpen) => {
        if (error instanceof ReplicationError && error.code === 'TARGET_UNREACHABLE') begin();
        options.onProblem?.(error);
        if (wasOpen) await note(stream, holder, error);
      },
    },
  ).finally(() => over.abort());
  return ended ?? 'signal';
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
