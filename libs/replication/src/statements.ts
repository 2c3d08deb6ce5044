import { createHash } from 'node:crypto';
import type { Column, Table } from './catalog.js';
import { qualified, quoted } from './connection.js';
import { ReplicationError } from './errors.js';

/**
 * The statements for rows with certain columns, many rows in one: `$1` is the first column of all of them as text[], and
 * so on. Casts from text make every type's own input function read what its output function wrote; an array of arrays
 * could not be unnested otherwise.
 */
export interface Statement {
  text: string;
  name: string | undefined;
}

/* Prepared statements of one table; shapes beyond this (many sets of unchanged columns) are planned each time. */
const MOST_PREPARED = 50;

export class TargetTable {
  readonly key: readonly string[];
  readonly #columns: ReadonlyMap<string, Column>;
  readonly #name: string;
  readonly #known = new Map<string, Statement>();

  constructor(readonly table: Table) {
    this.key = table.key;
    this.#columns = new Map(table.columns.map((column) => [column.name, column]));
    this.#name = qualified(table.schema, table.name);
  }

  get mergesFreely(): boolean {
    return !this.table.hasOtherUnique;
  }

  /** Can rows with these columns be written? Throws TARGET_COLUMN_MISSING. */
  accepts(columns: readonly string[]): void {
    const missing = columns.filter((name) => !this.#columns.has(name));
    if (missing.length > 0)
      throw new ReplicationError(
        'TARGET_COLUMN_MISSING',
        `${this.table.schema}.${this.table.name} of the target has no column ${missing.join(', ')}, which the source has by now.`,
        'Widen the target (run its migrations); the stream goes on by itself.',
      );
  }

  isGenerated(name: string): boolean {
    return this.#columns.get(name)?.generated === true;
  }

  /** Rows that are to be there with these values, whether they were or not. */
  put(columns: readonly string[]): Statement {
    return this.#once(`put ${columns.join('\0')}`, () => {
      const list = columns.map(quoted).join(', ');
      // Postgres looks at NOT NULL before it looks for a conflict. A part of a row, which a mapping gave, has to find
      // the rest in place, or else the insert says what is missing.
      if (this.table.columns.some((column) => isRequired(column) && !columns.includes(column.name)))
        return `with there as (${this.update(columns)?.text ?? ''} returning ${this.key.map((name) => `t.${quoted(name)}`).join(', ')})
          insert into ${this.#name} (${list}) overriding system value
          select ${columns.map((name, i) => this.#cast(name, i)).join(', ')} from ${unnest(columns.length)}
          where not exists (select from there as t where ${this.#matches((name) => columns.indexOf(name))})`;
      return `insert into ${this.#name} (${list}) overriding system value
        select ${columns.map((name, i) => this.#cast(name, i)).join(', ')} from ${unnest(columns.length)}
        on conflict (${this.key.map(quoted).join(', ')}) do update set ${this.#overwrite(columns)}`;
    });
  }

  /** Rows that are there get these values; the key comes with them. */
  update(columns: readonly string[]): Statement | undefined {
    const set = columns.filter((name) => !this.key.includes(name) && !this.#columns.get(name)?.identityAlways);
    if (set.length === 0) return undefined;
    return this.#once(
      `update ${columns.join('\0')}`,
      () => `update ${this.#name} as t set ${set
        .map((name) => `${quoted(name)} = ${this.#cast(name, columns.indexOf(name))}`)
        .join(', ')}
        from ${unnest(columns.length)} where ${this.#matches((name) => columns.indexOf(name))}`,
    );
  }

  /** Parameters: the key's columns. */
  delete(): Statement {
    return this.#once(
      'delete',
      () =>
        `delete from ${this.#name} as t using ${unnest(this.key.length)} where ${this.#matches((_, place) => place)}`,
    );
  }

  /**
   * One row whose key changed. Parameters: its columns, then the old key. A row that is not there is put when it is
   * known as a whole (`else` 'put'); 'note' keeps its key (two more parameters: stream, table; then the source's key
   * as text[]) so that it is read again; 'nothing' leaves it.
   */
  rekey(columns: readonly string[], otherwise: 'put' | 'note' | 'nothing'): Statement {
    const count = columns.length + this.key.length;
    return this.#once(`rekey ${otherwise} ${columns.join('\0')}`, () => {
      const set = columns
        .filter((name) => !this.#columns.get(name)?.identityAlways || this.key.includes(name))
        .map((name) => `${quoted(name)} = ${this.#cast(name, columns.indexOf(name))}`);
      const moved = `update ${this.#name} as t set ${set.join(', ')} from ${unnest(count)}
        where ${this.#matches((_, place) => columns.length + place)}`;
      if (otherwise === 'nothing') return moved;
      const missing = 'not exists (select from moved)';
      if (otherwise === 'note')
        return `with moved as (${moved} returning 1)
          insert into banyan_replication.reread (stream, table_name, key)
          select $${count + 1}, $${count + 2}, $${count + 3}::text[] where ${missing}
          on conflict (stream, table_name, key) do update set stream = excluded.stream`;
      return `with moved as (${moved} returning 1)
        insert into ${this.#name} (${columns.map(quoted).join(', ')}) overriding system value
        select ${columns.map((name, i) => this.#cast(name, i)).join(', ')} from ${unnest(count)} where ${missing}
        on conflict (${this.key.map(quoted).join(', ')}) do update set ${this.#overwrite(columns)}`;
    });
  }

  get sqlName(): string {
    return this.#name;
  }

  #once(signature: string, text: () => string): Statement {
    let known = this.#known.get(signature);
    if (!known) {
      const sql = text();
      const name = createHash('sha256').update(sql).digest('base64url').slice(0, 24);
      known = { text: sql, name: this.#known.size < MOST_PREPARED ? name : undefined };
      this.#known.set(signature, known);
    }
    return known;
  }

  #overwrite(columns: readonly string[]): string {
    const set = columns.filter((name) => !this.key.includes(name) && !this.#columns.get(name)?.identityAlways);
    // Nothing but a key: the row is there, which is all that is asked. Never DO NOTHING, which hides other conflicts.
    return (set.length > 0 ? set : this.key).map((name) => `${quoted(name)} = excluded.${quoted(name)}`).join(', ');
  }

  #cast(name: string, i: number): string {
    return `u.c${i}::${(this.#columns.get(name) as Column).type}`;
  }

  #matches(placeOf: (name: string, place: number) => number): string {
    return this.key.map((name, place) => `t.${quoted(name)} = ${this.#cast(name, placeOf(name, place))}`).join(' and ');
  }
}

const isRequired = (column: Column): boolean => column.notNull && !column.hasDefault && !column.generated;

const unnest = (count: number): string => {
  const numbers = Array.from({ length: count }, (_, i) => i);
  return `unnest(${numbers.map((i) => `$${i + 1}::text[]`).join(', ')}) as u(${numbers.map((i) => `c${i}`).join(', ')})`;
};
