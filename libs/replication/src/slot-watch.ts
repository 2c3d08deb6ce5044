import { setTimeout as sleep } from 'node:timers/promises';
import { withConnection } from './connection.js';
import { applicationName } from './open.js';
import { type Slot, readSlot } from './slot.js';
import type { Stream } from './stream.js';

const EVERY_MS = 10_000;

/**
 * Until the signal, keeps a quiet slot moving and watches what it retains: without a message now and then, the slot of a
 * quiet schema in a busy server would pin the log until the disk is full. On connections of its own, because a slot
 * retains most while the target or NATS is away.
 */
export async function watchSlot(
  stream: Stream,
  onWarning: ((message: string) => void) | undefined,
  signal: AbortSignal,
): Promise<void> {
  for (; !signal.aborted; await sleep(EVERY_MS, undefined, { signal }).catch(() => {})) {
    // Whoever carries the stream meets what is wrong with the source, and tells.
    const slot = await beat(stream).catch(() => undefined);
    if (signal.aborted || !slot?.keepBytes || slot.retainedBytes < slot.keepBytes / 2) continue;
    onWarning?.(
      `The slot ${stream.name} retains ${megabytes(slot.retainedBytes)} of log; ` +
        `at ${megabytes(slot.keepBytes)} it is lost and everything has to be copied again.`,
    );
  }
}

function beat(stream: Stream): Promise<Slot | undefined> {
  return withConnection(stream.source, { as: `${applicationName(stream)}:watch` }, async (source) => {
    await source.query('select pg_logical_emit_message(false, $1, $2)', ['banyan.heartbeat', stream.name]);
    return (await readSlot(source, stream.name)).slot;
  });
}

const megabytes = (bytes: number) => `${Math.round(bytes / 1024 / 1024)} MB`;
