import type pg from 'pg';
import { readSlot } from './slot.js';
import type { Stream } from './stream.js';

const EVERY_MS = 10_000;

/**
 * Keeps a quiet slot moving and watches what it retains: without a message now and then, the slot of a quiet schema in a
 * busy server would pin the log until the disk is full.
 */
export class SlotWatch {
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly source: pg.Client,
    private readonly stream: Stream,
    private readonly onWarning: ((message: string) => void) | undefined,
    private readonly onFailure: (error: Error) => void,
  ) {}

  start(): void {
    const beat = () =>
      void this.#beat().catch((error: Error) => {
        this.stop();
        this.onFailure(error);
      });
    this.#timer = setInterval(beat, EVERY_MS);
    beat();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #beat(): Promise<void> {
    await this.source.query('select pg_logical_emit_message(false, $1, $2)', ['banyan.heartbeat', this.stream.name]);
    const { slot } = await readSlot(this.source, this.stream.name);
    if (!slot?.keepBytes || slot.retainedBytes < slot.keepBytes / 2) return;
    this.onWarning?.(
      `The slot ${this.stream.name} retains ${megabytes(slot.retainedBytes)} of log; ` +
        `at ${megabytes(slot.keepBytes)} it is lost and everything has to be copied again.`,
    );
  }
}

const megabytes = (bytes: number) => `${Math.round(bytes / 1024 / 1024)} MB`;
