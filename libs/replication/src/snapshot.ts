/** Which transactions a read has seen. */
export class Snapshot {
  static readonly NONE = new Snapshot(0n, 0n, new Set());

  private constructor(
    readonly xmin: bigint,
    readonly xmax: bigint,
    private readonly running: ReadonlySet<bigint>,
  ) {}

  /** What `pg_current_snapshot()` says: `xmin:xmax:xip,…`. */
  static parse(text: string): Snapshot {
    const [xmin, xmax, running] = text.split(':');
    return new Snapshot(
      BigInt(xmin as string),
      BigInt(xmax as string),
      new Set((running || undefined)?.split(',').map(BigInt)),
    );
  }

  /** Has it not seen what this transaction wrote? The log gives the lower 32 bits of a number: the nearest one is meant. */
  misses(xid: number): boolean {
    const full = this.#full(xid);
    return full >= this.xmax || this.running.has(full);
  }

  isBefore(xid: number): boolean {
    return this.#full(xid) < this.xmin;
  }

  #full(xid: number): bigint {
    const base = this.xmax - (this.xmax & 0xffffffffn) + BigInt(xid);
    if (base > this.xmax + 0x80000000n) return base - 0x100000000n;
    if (base < this.xmax - 0x80000000n) return base + 0x100000000n;
    return base;
  }
}
