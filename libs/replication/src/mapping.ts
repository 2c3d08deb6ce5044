import type { Value } from './row.js';
import { ReplicationError } from './errors.js';

/** A row with its values in Postgres' own text; `undefined` or left out: not known, and not to be touched. */
export type RowValues = Readonly<Record<string, Value>>;

export interface MappedRow {
  table: string;
  /** The target's key, and whatever else is to be set. */
  row: RowValues;
  /** Is this row not to be there (any more)? Of a deleted row it is true when left out. */
  gone?: boolean;
}

/**
 * The anti-corruption layer of one direction: what a row of the source is in the target, zero or more rows.
 *
 * For a deleted row only the key is known (`change` is 'delete'); name every row that it may have become. In an update a
 * large value that did not change is `undefined`, and stays so. It has to be a pure function of its arguments. Two tables
 * may become one: each gives its part of the row under the same key.
 */
export interface Mapping {
  (table: string, row: RowValues, change: 'put' | 'delete'): readonly MappedRow[];
  /** The target's tables that are empty when this one is. Without it a TRUNCATE stops the stream. */
  truncated?: (table: string) => readonly string[];
}

/** Calls the mapping, and says which row it fell over; the row itself may hold what is nobody's business. */
export function mapped(
  mapping: Mapping,
  table: string,
  row: RowValues,
  change: 'put' | 'delete',
): readonly MappedRow[] {
  let result: readonly MappedRow[];
  try {
    result = mapping(table, row, change);
  } catch (error) {
    throw broken(`fails on a row of ${table} (${change}): ${(error as Error).message}`, error);
  }
  if (!Array.isArray(result) || result.some((each) => typeof each?.table !== 'string' || typeof each.row !== 'object'))
    throw broken(`gives no list of {table, row} for a row of ${table} (${change})`);
  return result;
}

export const broken = (what: string, cause?: unknown): ReplicationError =>
  new ReplicationError('MAPPING', `The mapping ${what}.`, 'Mend the mapping; nothing of this row was written.', {
    cause,
  });
