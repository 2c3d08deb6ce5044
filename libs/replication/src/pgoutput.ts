import { NULL, type Row, UNCHANGED } from './row.js';

/** A table as it was at that place of the log. */
export interface Relation {
  id: number;
  schema: string;
  table: string;
  columns: readonly string[];
  /** Columns that identify a row in what the log tells of old rows. */
  keyColumns: readonly string[];
}

/** The first byte of a message. */
export const Tag = {
  begin: 0x42,
  commit: 0x43,
  relation: 0x52,
  insert: 0x49,
  update: 0x55,
  delete: 0x44,
  truncate: 0x54,
  message: 0x4d,
} as const;

/** Where the commit record of a `begin` stands: not before a position means not applied there. */
export const commitOf = (begin: Buffer): bigint => begin.readBigUInt64BE(1);
/** Where the transaction of a `commit` ends. */
export const endOf = (commit: Buffer): bigint => commit.readBigUInt64BE(10);
export const clockOf = (commit: Buffer): number => wallClockMs(commit.readBigInt64BE(18));

/** The tables that a message cannot be read without. */
export function relationsOf(message: Buffer): number[] {
  switch (message[0]) {
    case Tag.insert:
    case Tag.update:
    case Tag.delete:
      return [message.readUInt32BE(1)];
    case Tag.truncate:
      return Array.from({ length: message.readUInt32BE(1) }, (_, i) => message.readUInt32BE(6 + 4 * i));
    default:
      return [];
  }
}

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html */
export type LogEvent =
  | { kind: 'begin'; xid: number }
  | { kind: 'commit'; end: bigint; at: number }
  | { kind: 'relation'; relation: Relation }
  | { kind: 'insert'; relation: Relation; row: Row }
  /** `old` only when the key changed, or with REPLICA IDENTITY FULL. */
  | { kind: 'update'; relation: Relation; old: Row | undefined; row: Row }
  /** `old`: the key's columns are known, the others are null (or known, with REPLICA IDENTITY FULL). */
  | { kind: 'delete'; relation: Relation; old: Row }
  | { kind: 'truncate'; relations: Relation[]; restartIdentity: boolean }
  | { kind: 'message'; transactional: boolean; lsn: bigint; prefix: string; content: string }
  | { kind: 'other' };

/* Microseconds from 1970 to 2000, where Postgres' clock begins. */
const POSTGRES_EPOCH_US = 946_684_800_000_000n;
export const wallClockMs = (postgresUs: bigint): number => Number((postgresUs + POSTGRES_EPOCH_US) / 1000n);

const OTHER: LogEvent = { kind: 'other' };

/**
 * Reads pgoutput. Values stay bytes: the parser of pg-logical-replication makes a JavaScript value of each cell, which
 * loses digits and microseconds and costs more than everything else together.
 */
export class PgOutput {
  readonly #relations = new Map<number, Relation>();
  readonly #described = new Map<number, Buffer>();
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;

  decode(bytes: Buffer): LogEvent {
    this.#bytes = bytes;
    this.#at = 1;
    switch (bytes[0]) {
      case Tag.begin: // final LSN, time, xid
        return { kind: 'begin', xid: bytes.readUInt32BE(17) };
      case Tag.commit: // flags, LSN, end LSN, time
        return { kind: 'commit', end: endOf(bytes), at: clockOf(bytes) };
      case Tag.relation:
        return this.#relation();
      case Tag.insert: {
        const relation = this.#known();
        this.#at += 1; // N
        return { kind: 'insert', relation, row: this.#row(relation) };
      }
      case Tag.update: {
        const relation = this.#known();
        const old = bytes[this.#at++] === 0x4e ? undefined : this.#row(relation);
        if (old) this.#at += 1; // N
        return { kind: 'update', relation, old, row: this.#row(relation) };
      }
      case Tag.delete: {
        const relation = this.#known();
        this.#at += 1; // K or O
        return { kind: 'delete', relation, old: this.#row(relation) };
      }
      case Tag.truncate: {
        const count = this.#int32();
        const flags = bytes[this.#at++] as number;
        const relations = Array.from({ length: count }, () => this.#known());
        return { kind: 'truncate', relations, restartIdentity: (flags & 2) !== 0 };
      }
      case Tag.message: {
        const transactional = (bytes[this.#at++] as number) === 1;
        const lsn = bytes.readBigUInt64BE(this.#at);
        this.#at += 8;
        const prefix = this.#string();
        const length = this.#int32();
        return {
          kind: 'message',
          transactional,
          lsn,
          prefix,
          content: bytes.toString('utf8', this.#at, this.#at + length),
        };
      }
      default: // O, Y: where a transaction came from, and types, which we read from the catalogs
        return OTHER;
    }
  }

  #relation(): LogEvent {
    const id = this.#int32();
    // A log that has it again and again: rows of one shape share the array of its columns.
    const known = this.#described.get(id)?.equals(this.#bytes) && this.#relations.get(id);
    if (known) return { kind: 'relation', relation: known };
    const schema = this.#string() || 'pg_catalog';
    const table = this.#string();
    this.#at += 1; // replica identity: the preflight has looked at it
    const columns: string[] = [];
    const keyColumns: string[] = [];
    const count = this.#bytes.readInt16BE(this.#at);
    this.#at += 2;
    for (let i = 0; i < count; i++) {
      const key = this.#bytes[this.#at++] === 1;
      const name = this.#string();
      this.#at += 8; // type, modifier
      columns.push(name);
      if (key) keyColumns.push(name);
    }
    const relation = { id, schema, table, columns, keyColumns };
    this.#relations.set(id, relation);
    this.#described.set(id, Buffer.from(this.#bytes));
    return { kind: 'relation', relation };
  }

  #known(): Relation {
    const id = this.#int32();
    const relation = this.#relations.get(id);
    if (!relation) throw new Error(`The log speaks of table ${id}, which it has not described`);
    return relation;
  }

  #row({ columns }: Relation): Row {
    const bytes = this.#bytes;
    let at = this.#at;
    const count = bytes.readInt16BE(at);
    at += 2;
    const cells = new Int32Array(count * 2);
    for (let i = 0; i < count; i++) {
      const kind = bytes[at++];
      if (kind === 0x74) {
        const length = bytes.readInt32BE(at);
        at += 4;
        cells[2 * i] = at;
        cells[2 * i + 1] = length;
        at += length;
      } else cells[2 * i + 1] = kind === 0x75 ? UNCHANGED : NULL;
    }
    this.#at = at;
    return { columns, bytes, cells };
  }

  #int32(): number {
    const value = this.#bytes.readInt32BE(this.#at);
    this.#at += 4;
    return value;
  }

  #string(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    const text = this.#bytes.toString('utf8', this.#at, end);
    this.#at = end + 1;
    return text;
  }
}
