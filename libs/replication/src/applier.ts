import type pg from 'pg';
import { type Table, targetSchemaOf } from './catalog.js';
import { type Mapping, type RowValues, broken, mapped } from './mapping.js';
import type { Relation } from './pgoutput.js';
import { type Row, columnArray, isWhole, keyAt, knownPlaces, overlay, placesOf, rowOf, rowValues } from './row.js';
import { type Statement, TargetTable } from './statements.js';
import { ReplicationError } from './errors.js';
import type { Stream } from './stream.js';

/** What is to happen to one row of the target, by its key. */
interface Change {
  /** `put`: be there with these values; `update`: get these values if it is there; `delete`: not be there. */
  kind: 'put' | 'update' | 'delete';
  row: Row;
  /** It was deleted before it was put again: columns that only the target has start anew. */
  anew: boolean;
}

interface Pending {
  table: TargetTable;
  changes: Map<string, Change>;
  kind: Change['kind'];
}

/* One statement's rows; above this a transaction's rows go to the server while more of it is read. */
const FLUSH_ROWS = 5_000;
const FLUSH_BYTES = 4 << 20;
/* What may be on its way before we wait for the server. */
const IN_FLIGHT_BYTES = 16 << 20;

/**
 * Turns changes into statements on one connection of the target. Changes of one row are folded into one where nothing
 * but the key is unique in its table, so that a batch of transactions becomes one statement per table and kind: its
 * end state is the same, and nobody sees what is in between. Where other columns are unique too, the order of changes
 * is kept.
 */
export class Applier {
  readonly #pending = new Map<string, Pending>();
  readonly #tables = new Map<string, TargetTable>();
  readonly #targets = new WeakMap<readonly string[], { table: TargetTable; key: number[] }>();
  #rows = 0;
  #bytes = 0;
  #sent: Promise<unknown>[] = [];
  #sentBytes = 0;
  #failure: Error | undefined;
  /** Rows written since the start. */
  applied = 0;
  /** Is anything written since the last commit? */
  dirty = false;

  constructor(
    private readonly client: pg.Client,
    private readonly stream: Stream,
    tables: ReadonlyMap<string, Table>,
  ) {
    for (const table of tables.values()) this.#tables.set(table.name, new TargetTable(table));
  }

  get pendingRows(): number {
    return this.#rows;
  }

  insert(relation: { table: string; columns: readonly string[] }, row: Row): void {
    this.#bytes += row.bytes.length;
    if (this.stream.mapping) return this.#mapped(this.stream.mapping, relation.table, rowValues(row), 'put');
    const { table, key } = this.#target(relation);
    this.#add(table, keyAt(row, key), { kind: 'put', row, anew: false });
  }

  /** `reread`: what the source's key is, where a row that is missing is to be read again. */
  update(relation: Relation, old: Row | undefined, row: Row, reread: string[] | undefined): void {
    this.#bytes += row.bytes.length;
    const kind = isWhole(row) ? 'put' : 'update';
    if (this.stream.mapping) return this.#mappedUpdate(this.stream.mapping, relation, old, row, reread);
    const { table, key } = this.#target(relation);
    const id = keyAt(row, key);
    if (old && keyAt(old, key) !== id) return this.#rekey(table, old, row, relation.table, reread);
    this.#add(table, id, { kind, row, anew: false });
  }

  delete(relation: Relation, old: Row): void {
    this.#bytes += old.bytes.length;
    if (this.stream.mapping)
      return this.#mapped(this.stream.mapping, relation.table, keyValues(relation, old), 'delete');
    const { table, key } = this.#target(relation);
    this.#add(table, keyAt(old, key), { kind: 'delete', row: old, anew: false });
  }

  truncate(relations: readonly Relation[], restartIdentity: boolean): void {
    this.flush();
    const { mapping } = this.stream;
    const names = relations.flatMap((relation) => {
      if (!mapping) return [this.#target(relation).table.sqlName];
      if (mapping.truncated) return mapping.truncated(relation.table).map((name) => this.#tableNamed(name).sqlName);
      throw broken(`has no \`truncated\` to tell what TRUNCATE of ${relation.table} means in the target`);
    });
    if (names.length === 0) return;
    this.#send(
      { text: `truncate ${names.join(', ')}${restartIdentity ? ' restart identity' : ''}`, name: undefined },
      [],
    );
  }

  /** Sends what is pending when it has become much; waits when the server does not keep up. */
  async relieve(): Promise<void> {
    if (this.#rows < FLUSH_ROWS && this.#bytes < FLUSH_BYTES) return;
    this.flush();
    if (this.#sentBytes > IN_FLIGHT_BYTES) await this.settle();
  }

  /** Sends everything that is pending. */
  flush(): void {
    for (const pending of this.#pending.values()) this.#flushTable(pending);
  }

  /** Sends a statement behind everything sent so far; its result is known when `settle` is through. */
  send(text: string, values: unknown[] = []): Promise<pg.QueryResult> {
    this.dirty = true;
    return this.#track(this.client.query(text, values));
  }

  /** Waits until everything sent is done; throws the first error. */
  async settle(): Promise<void> {
    const sent = this.#sent;
    this.#sent = [];
    this.#sentBytes = 0;
    await Promise.all(sent);
    if (this.#failure) throw this.#failure;
  }

  #target(relation: { table: string; columns: readonly string[] }): { table: TargetTable; key: number[] } {
    let target = this.#targets.get(relation.columns);
    if (!target) {
      const table = this.#tableNamed(relation.table);
      table.accepts(relation.columns);
      target = { table, key: placesOf(relation.columns, table.key) };
      this.#targets.set(relation.columns, target);
    }
    return target;
  }

  #tableNamed(name: string): TargetTable {
    const table = this.#tables.get(name);
    if (table) return table;
    throw new ReplicationError(
      'TARGET_TABLE_MISSING',
      `The target has no table ${targetSchemaOf(this.stream)}.${name}.`,
      'Create it (run its migrations); the stream goes on by itself.',
    );
  }

  #add(table: TargetTable, key: string, change: Change): void {
    let pending = this.#pending.get(table.sqlName);
    if (!pending) {
      pending = { table, changes: new Map(), kind: change.kind };
      this.#pending.set(table.sqlName, pending);
    }
    let before = pending.changes.get(key);
    const ordered = !table.mergesFreely && !this.stream.mapping;
    if (ordered && pending.changes.size > 0 && (before || pending.kind !== change.kind)) {
      this.#flushTable(pending);
      before = undefined;
    }
    pending.kind = change.kind;
    this.#rows += before ? 0 : 1;
    pending.changes.set(key, before ? folded(before, change) : change);
  }

  #flushTable({ table, changes }: Pending): void {
    if (changes.size === 0) return;
    const gone: Row[] = [];
    const groups = new Map<string, { kind: 'put' | 'update'; columns: string[]; rows: Row[] }>();
    for (const { kind, row, anew } of changes.values()) {
      if (kind === 'delete' || anew) gone.push(row);
      if (kind === 'delete') continue;
      const columns = knownColumns(row);
      const signature = `${kind} ${columns === row.columns ? '' : columns.join('\0')}`;
      // Rows of one shape share the array of its columns, so most rows need no more than a look.
      let group = groups.get(signature);
      if (group && columns === row.columns && group.columns !== row.columns) {
        const own = `${kind} ${columns.join('\0')}`;
        group = groups.get(own);
        if (!group) groups.set(own, (group = { kind, columns: [...columns], rows: [] }));
      }
      if (!group) groups.set(signature, (group = { kind, columns: columns as string[], rows: [] }));
      group.rows.push(row);
    }
    if (gone.length > 0) this.#sendRows(table.delete(), gone, table.key);
    for (const { kind, columns, rows } of groups.values()) {
      const named = columns.filter((name) => !table.isGenerated(name));
      const statement = kind === 'put' ? table.put(named) : table.update(named);
      if (statement) this.#sendRows(statement, rows, named);
    }
    this.applied += changes.size;
    this.#rows -= changes.size;
    this.#bytes = 0;
    changes.clear();
  }

  #sendRows(statement: Statement, rows: readonly Row[], columns: readonly string[]): void {
    this.#send(
      statement,
      columns.map((name) => columnArray(rows, placeFinder(name))),
    );
  }

  #send({ text, name }: Statement, values: unknown[]): void {
    this.dirty = true;
    for (const value of values) if (Buffer.isBuffer(value)) this.#sentBytes += value.length;
    void this.#track(this.client.query({ text, values, ...(name && { name }) }));
  }

  #track<T>(query: Promise<T>): Promise<T> {
    this.#sent.push(
      query.then(
        () => {},
        (error: Error) => void (this.#failure ??= error),
      ),
    );
    return query;
  }

  #rekey(table: TargetTable, old: Row, row: Row, source: string, reread: string[] | undefined): void {
    this.flush();
    const places = knownPlaces(row).filter((place) => !table.isGenerated(row.columns[place] as string));
    const columns = places.map((place) => row.columns[place] as string);
    const otherwise = isWhole(row) ? 'put' : reread ? 'note' : 'nothing';
    this.#send(table.rekey(columns, otherwise), [
      ...places.map((place) => columnArray([row], () => place)),
      ...table.key.map((name) => columnArray([old], placeFinder(name))),
      ...(otherwise === 'note' ? [this.stream.name, source, reread] : []),
    ]);
    this.applied += 1;
  }

  #mapped(
    mapping: Mapping,
    source: string,
    values: RowValues,
    change: 'put' | 'delete',
    kind: 'put' | 'update' = 'put',
  ) {
    for (const { table: name, row, gone } of mapped(mapping, source, values, change)) {
      const { table, key, converted } = this.#mappedRow(name, row);
      this.#add(table, key, { kind: (gone ?? change === 'delete') ? 'delete' : kind, row: converted, anew: false });
    }
  }

  #mappedUpdate(
    mapping: Mapping,
    relation: Relation,
    old: Row | undefined,
    row: Row,
    reread: string[] | undefined,
  ): void {
    const kind = isWhole(row) ? 'put' : 'update';
    const places = placesOf(relation.columns, relation.keyColumns);
    if (!old || keyAt(old, places) === keyAt(row, places))
      return this.#mapped(mapping, relation.table, rowValues(row), 'put', kind);
    // The key changed: the rows that it became move with it; one that has no counterpart goes or comes.
    const before = [...mapped(mapping, relation.table, keyValues(relation, old), 'delete')];
    for (const { table: name, row: values, gone } of mapped(mapping, relation.table, rowValues(row), 'put')) {
      const after = this.#mappedRow(name, values);
      const place = before.findIndex((each) => each.table === name);
      const previous = place < 0 ? undefined : this.#mappedRow(name, before.splice(place, 1)[0]!.row);
      if (gone && previous)
        this.#add(previous.table, previous.key, { kind: 'delete', row: previous.converted, anew: false });
      else if (gone) continue;
      else if (previous && previous.key !== after.key)
        this.#rekey(after.table, previous.converted, after.converted, relation.table, reread);
      else this.#add(after.table, after.key, { kind, row: after.converted, anew: false });
    }
    for (const { table: name, row: values } of before) {
      const { table, key, converted } = this.#mappedRow(name, values);
      this.#add(table, key, { kind: 'delete', row: converted, anew: false });
    }
  }

  #mappedRow(name: string, values: RowValues): { table: TargetTable; key: string; converted: Row } {
    const table = this.#tableNamed(name);
    const columns = Object.keys(values).filter((column) => values[column] !== undefined);
    table.accepts(columns);
    const missing = table.key.filter((column) => values[column] === undefined || values[column] === null);
    if (missing.length > 0) throw broken(`gives no ${missing.join(', ')} for a row of ${name}, whose key it is`);
    const converted = rowOf(
      columns,
      columns.map((column) => values[column]),
    );
    return { table, key: keyAt(converted, placesOf(columns, table.key)), converted };
  }
}

const keyValues = (relation: Relation, old: Row): RowValues => {
  const values = rowValues(old);
  return Object.fromEntries(relation.keyColumns.map((name) => [name, values[name]]));
};

const knownColumns = (row: Row): readonly string[] =>
  isWhole(row) ? row.columns : knownPlaces(row).map((place) => row.columns[place] as string);

/** Finds a column in rows that mostly share one array of columns. */
function placeFinder(name: string): (row: Row) => number {
  let columns: readonly string[] | undefined;
  let place = -1;
  return (row) => {
    if (row.columns !== columns) {
      columns = row.columns;
      place = columns.indexOf(name);
    }
    return place;
  };
}

const covers = (row: Row, other: Row): boolean =>
  row.columns === other.columns || other.columns.every((name) => row.columns.includes(name));

/** Two changes of one row as one. */
function folded(before: Change, after: Change): Change {
  if (after.kind === 'delete') return { ...after, anew: false };
  if (before.kind === 'delete') return { kind: 'put', row: after.row, anew: true };
  if (after.kind === 'put' && isWhole(after.row) && covers(after.row, before.row))
    return { ...after, anew: before.anew };
  return {
    kind: before.kind === 'put' || after.kind === 'put' ? 'put' : 'update',
    row: overlay(before.row, after.row),
    anew: before.anew,
  };
}
