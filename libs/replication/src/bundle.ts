import { Tag, clockOf, endOf, relationsOf } from './pgoutput.js';

/**
 * pgoutput messages on their way into a shared log, each behind its length. Postgres describes a table once per
 * connection; here its description comes again in each bundle that speaks of it, because anybody may begin with any of them.
 */
export class Bundle {
  readonly #descriptions = new Map<number, Buffer>();
  readonly #described = new Set<number>();
  #frames: Buffer[] = [];
  #bytes = 0;
  #open = false;
  #end: { lsn: bigint; at: number } | undefined;

  /** Is a transaction in it whose commit has not come yet? */
  get isOpen(): boolean {
    return this.#open;
  }

  get isEmpty(): boolean {
    return this.#bytes === 0;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The end of its last transaction. */
  get end(): { lsn: bigint; at: number } | undefined {
    return this.#end;
  }

  add(message: Buffer): void {
    switch (message[0]) {
      case Tag.begin:
        this.#open = true;
        return this.#frame(message);
      case Tag.commit:
        this.#open = false;
        this.#end = { lsn: endOf(message), at: clockOf(message) };
        return this.#frame(message);
      case Tag.relation: {
        const id = message.readUInt32BE(1);
        this.#descriptions.set(id, message);
        this.#described.delete(id);
        return;
      }
      case Tag.message:
        // Outside of a transaction: a heartbeat, which has done its work.
        if (message[1] === 1) this.#frame(message);
        return;
      case Tag.insert:
      case Tag.update:
      case Tag.delete:
      case Tag.truncate:
        for (const id of relationsOf(message)) this.#describe(id);
        return this.#frame(message);
      default: // origins and types, which no session looks at
    }
  }

  /** Its bytes up to here. */
  take(): Buffer {
    const bytes = Buffer.concat(this.#frames, this.#bytes);
    this.#frames = [];
    this.#bytes = 0;
    return bytes;
  }

  /** The rest of what was taken, which more is to follow. */
  giveBack(rest: Buffer): void {
    this.#frames = rest.length > 0 ? [rest] : [];
    this.#bytes = rest.length;
  }

  /** The next one begins. */
  clear(): void {
    this.#described.clear();
    this.#end = undefined;
  }

  #describe(id: number): void {
    if (this.#described.has(id)) return;
    const description = this.#descriptions.get(id);
    if (!description) throw new Error(`The log speaks of table ${id}, which it has not described`);
    this.#described.add(id);
    this.#frame(description);
  }

  #frame(message: Buffer): void {
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32BE(message.length, 0);
    this.#frames.push(length, message);
    this.#bytes += 4 + message.length;
  }
}

/** Takes bundles apart again, in parts as they come; a part may end in the middle of a message. */
export class BundleReader {
  #parts: Buffer[] = [];
  #have = 0;
  /** Until so many bytes are here, there is no further message. */
  #need = 0;

  begin(): void {
    this.#keep(Buffer.alloc(0));
  }

  *messages(part: Buffer): Generator<Buffer> {
    this.#parts.push(part);
    this.#have += part.length;
    if (this.#have < this.#need) return;
    const bytes = this.#parts.length === 1 ? part : Buffer.concat(this.#parts);
    let at = 0;
    while (at + 4 <= bytes.length) {
      const end = at + 4 + bytes.readUInt32BE(at);
      if (end > bytes.length) break;
      yield bytes.subarray(at + 4, end);
      at = end;
    }
    this.#keep(bytes.subarray(at));
  }

  #keep(rest: Buffer): void {
    this.#parts = rest.length > 0 ? [rest] : [];
    this.#have = rest.length;
    this.#need = rest.length < 4 ? 0 : 4 + rest.readUInt32BE(0);
  }
}
