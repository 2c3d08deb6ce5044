/** Either a pgoutput message, or the word that everything up to `lsn` has come. */
export type LogItem = { payload: Buffer } | { lsn: bigint; at: number };

/* It is full above, and has room again below: the log waits where it comes from and not in our memory. */
const FULL_BYTES = 32 << 20;
const ROOM_BYTES = 8 << 20;

/** What has come of a log and was not taken yet. */
export class LogQueue {
  #items: LogItem[] = [];
  #next = 0;
  #bytes = 0;
  #full = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  /** `onRoom`: it was full and is not any more. */
  constructor(private readonly onRoom: () => void) {}

  get isEmpty(): boolean {
    return this.#next === this.#items.length;
  }

  get isFull(): boolean {
    return this.#full;
  }

  get failed(): boolean {
    return this.#failure !== undefined;
  }

  push(payload: Buffer): void {
    this.#bytes += payload.length;
    if (this.#bytes > FULL_BYTES) this.#full = true;
    this.#items.push({ payload });
  }

  /** Of two in a row the later one counts. */
  reached(position: { lsn: bigint; at: number }): void {
    const last = this.#items.at(-1);
    if (last && 'lsn' in last) this.#items[this.#items.length - 1] = position;
    else this.#items.push(position);
  }

  /** Whoever waits is to look. */
  wakeUp(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  /** Nothing comes any more; false: that was known. */
  fail(error: Error): boolean {
    if (this.#failure) return false;
    this.#failure = error;
    this.wakeUp();
    return true;
  }

  /** The next item, if one is here. Throws when the log has broken off and all that came before was taken. */
  take(): LogItem | undefined {
    const item = this.#items[this.#next];
    if (!item) {
      if (this.#failure) throw this.#failure;
      return undefined;
    }
    this.#items[this.#next++] = undefined as never;
    if (this.#next === this.#items.length) {
      this.#items = [];
      this.#next = 0;
    }
    if ('payload' in item) this.#bytes -= item.payload.length;
    if (this.#full && this.#bytes < ROOM_BYTES) {
      this.#full = false;
      this.onRoom();
    }
    return item;
  }

  /** Resolves when something came or broke, or after `ms`. */
  wait(ms: number): Promise<void> {
    if (!this.isEmpty || this.#failure) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
