/** Lengths with a meaning of their own. */
export const NULL = -1;
/** A large value that an update did not touch: the log leaves it out. */
export const UNCHANGED = -2;

/**
 * A row in Postgres' own text, as it came in: cell i starts at `cells[2i]` of `bytes` and is `cells[2i + 1]` long.
 * Values are moved from one connection to the other as bytes and never become strings; with strings a row of ten
 * columns cost about 10 us more.
 */
export interface Row {
  readonly columns: readonly string[];
  readonly bytes: Buffer;
  readonly cells: Int32Array;
}

export type Value = string | null | undefined;

const lengthAt = (row: Row, i: number) => row.cells[2 * i + 1] as number;
const startAt = (row: Row, i: number) => row.cells[2 * i] as number;

export const isWhole = ({ cells }: Row): boolean => {
  for (let i = 1; i < cells.length; i += 2) if (cells[i] === UNCHANGED) return false;
  return true;
};

/** The cells at these places as one string, equal for equal keys: no text in Postgres holds a NUL. */
export function keyAt(row: Row, places: readonly number[]): string {
  if (places.length === 1) {
    const start = startAt(row, places[0] as number);
    return row.bytes.toString('latin1', start, start + lengthAt(row, places[0] as number));
  }
  let key = '';
  for (const place of places) {
    const start = startAt(row, place);
    key += `${row.bytes.toString('latin1', start, start + lengthAt(row, place))}\0`;
  }
  return key;
}

/** Where `names` stand among the row's columns. Throws for one that is not there. */
export function placesOf(columns: readonly string[], names: readonly string[]): number[] {
  return names.map((name) => {
    const place = columns.indexOf(name);
    if (place < 0) throw new Error(`There is no column ${name} among ${columns.join(', ')}`);
    return place;
  });
}

/** `undefined` for what is unchanged. */
export function valueAt(row: Row, i: number): Value {
  const length = lengthAt(row, i);
  if (length === NULL) return null;
  if (length === UNCHANGED) return undefined;
  const start = startAt(row, i);
  return row.bytes.toString('utf8', start, start + length);
}

export const rowValues = (row: Row): Record<string, Value> =>
  Object.fromEntries(row.columns.map((name, i) => [name, valueAt(row, i)]));

/** A row of `values` in the order of `columns`. */
export function rowOf(columns: readonly string[], values: readonly Value[]): Row {
  const cells = new Int32Array(columns.length * 2);
  const parts: Buffer[] = [];
  let at = 0;
  values.forEach((value, i) => {
    cells[2 * i] = at;
    cells[2 * i + 1] = value === undefined ? UNCHANGED : value === null ? NULL : 0;
    if (typeof value !== 'string') return;
    const part = Buffer.from(value);
    cells[2 * i + 1] = part.length;
    at += part.length;
    parts.push(part);
  });
  return { columns, cells, bytes: Buffer.concat(parts) };
}

/** `later` over `earlier`: what the later one does not know is taken from the earlier one. */
export function overlay(earlier: Row, later: Row): Row {
  const columns =
    later.columns === earlier.columns || earlier.columns.every((name) => later.columns.includes(name))
      ? later.columns
      : [...later.columns, ...earlier.columns.filter((name) => !later.columns.includes(name))];
  const bytes = Buffer.concat([later.bytes, earlier.bytes]);
  const cells = new Int32Array(columns.length * 2);
  columns.forEach((name, i) => {
    const place = later.columns.indexOf(name);
    const known = place >= 0 && lengthAt(later, place) !== UNCHANGED;
    const from = known ? later : earlier;
    const at = known ? place : earlier.columns.indexOf(name);
    cells[2 * i] = at < 0 ? 0 : startAt(from, at) + (known ? 0 : later.bytes.length);
    cells[2 * i + 1] = at < 0 ? UNCHANGED : lengthAt(from, at);
  });
  return { columns, bytes, cells };
}

/** Places of the cells that are known. */
export function knownPlaces(row: Row): number[] {
  const places: number[] = [];
  for (let i = 0; i < row.columns.length; i++) if (lengthAt(row, i) !== UNCHANGED) places.push(i);
  return places;
}

const HEADER_BYTES = 20;
const TEXT_OID = 25;
/* Below this a loop is faster than a call of Buffer.copy. */
const LOOP_BYTES = 24;

/** One column of many rows as a `text[]` in Postgres' binary format: each cell is copied once, and nothing is escaped. */
export function columnArray(rows: readonly Row[], placeIn: (row: Row) => number): Buffer {
  let size = HEADER_BYTES;
  const places = new Int32Array(rows.length);
  for (let r = 0; r < rows.length; r++) {
    const row = rows[r] as Row;
    const place = (places[r] = placeIn(row));
    const length = lengthAt(row, place);
    size += 4 + (length > 0 ? length : 0);
  }
  const out = Buffer.allocUnsafe(size);
  let hasNull = 0;
  let at = HEADER_BYTES;
  for (let r = 0; r < rows.length; r++) {
    const row = rows[r] as Row;
    const start = startAt(row, places[r] as number);
    const length = lengthAt(row, places[r] as number);
    if (length < 0) {
      hasNull = 1;
      at = out.writeInt32BE(NULL, at);
      continue;
    }
    at = out.writeInt32BE(length, at);
    if (length > LOOP_BYTES) row.bytes.copy(out, at, start, start + length);
    else for (let i = 0; i < length; i++) out[at + i] = row.bytes[start + i] as number;
    at += length;
  }
  out.writeInt32BE(1, 0);
  out.writeInt32BE(hasNull, 4);
  out.writeInt32BE(TEXT_OID, 8);
  out.writeInt32BE(rows.length, 12);
  out.writeInt32BE(1, 16);
  return out;
}
