import { describe, expect, it } from 'vitest';
import { type Chunk, Window } from './backfill.js';
import { type Value, rowOf, rowValues } from './row.js';
import { Snapshot } from './snapshot.js';

const columns = ['id', 'v', 'large'];
const row = (id: string, v: Value, large: Value) => rowOf(columns, [id, v, large]);
const windowOver = (...rows: ReturnType<typeof row>[]) => {
  const chunk: Chunk = { id: 1, table: 't', key: ['id'], rows, snapshot: Snapshot.NONE, last: true, lastKey: null };
  return new Window(chunk);
};
const held = (window: Window) => window.rows().map((each) => Object.values(rowValues(each)).join(' '));

describe('Between two watermarks', () => {
  it('what the log changed is taken from the log, what it left out from the chunk', () => {
    const window = windowOver(row('1', 'a', 'L1'), row('2', 'b', 'L2'), row('3', 'c', 'L3'));
    window.put(row('1', 'a2', undefined));
    window.put(row('2', 'b2', undefined));
    window.put(row('2', 'b3', 'new'));
    window.put(row('2', 'b4', undefined));
    expect(held(window)).toEqual(['1 a2 L1', '2 b4 new', '3 c L3']);
  });

  it('a deleted row stays deleted, unless it was put again', () => {
    const window = windowOver(row('1', 'a', 'L1'), row('2', 'b', 'L2'));
    window.delete(row('1', null, null));
    window.delete(row('2', null, null));
    window.put(row('2', 'again', null));
    expect(held(window)).toEqual(['2 again ']);
  });

  it('a table that was emptied has only the rows put since', () => {
    const window = windowOver(row('1', 'a', 'L1'), row('2', 'b', 'L2'));
    window.put(row('1', 'before', undefined));
    window.truncate();
    window.put(row('2', 'after', 'new'));
    expect(held(window)).toEqual(['2 after new']);
  });

  it('a row whose key changed there and back is known by the chunk and the log together', () => {
    const window = windowOver(row('1', 'a', 'L1'));
    window.put(row('-1', 'a', undefined), row('1', null, null));
    window.put(row('1', 'b', undefined), row('-1', null, null));
    expect(held(window)).toEqual(['1 b L1']);
  });

  it('a key to be read again, to which a row came in between, is not settled', () => {
    const window = windowOver(row('3', 'c', 'L3'));
    window.put(row('1', 'a', undefined), row('-1', null, null));
    window.put(row('3', 'c2', undefined));
    window.delete(row('4', null, null));
    expect(window.settled([['-1'], ['1'], ['2'], ['3'], ['4']])).toEqual([['-1'], ['2'], ['3'], ['4']]);
  });
});
