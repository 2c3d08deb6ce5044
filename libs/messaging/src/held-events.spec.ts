import { describe, expect, it } from 'vitest';
import type { EventEnvelope } from './envelope.js';
import { HeldEvents, type HoldingOptions } from './held-events.js';

const options: HoldingOptions = { batch: 10, attempts: 3, backoffMs: 100, patienceMs: 10_000, waiting: 5 };

/** `a3`: the third event of aggregate a. */
function event(name: string): EventEnvelope {
  const [aggregate, version] = [name[0]!, Number(name.slice(1))];
  return {
    specversion: '1.0',
    id: name,
    source: '/banyan/inventory',
    type: 'inventory.Added',
    subject: aggregate,
    time: '2026-01-01T00:00:00.000Z',
    datacontenttype: 'application/json',
    data: {},
    aggregateversion: version,
    previous: version > 1 ? `${aggregate}${version - 1}` : null,
  };
}

function holding(...names: string[]) {
  const held = new HeldEvents<string>(options);
  for (const name of names) held.came(event(name), `message of ${name}`);
  const due = (now: number) => held.due(now).map((each) => each.event.id);
  const one = (name: string, now: number) => held.due(now).find((each) => each.event.id === name)!;
  return { held, due, one };
}

describe('what is tried', () => {
  it('is a batch at most, each aggregate in its order', () => {
    const { due } = holding(...Array.from({ length: 12 }, (_, i) => `b${i + 1}`));
    expect(due(0)).toEqual(Array.from({ length: 10 }, (_, i) => `b${i + 1}`));
    expect(holding('b1', 'a1', 'a2', 'b2').due(0)).toEqual(['a1', 'a2', 'b1', 'b2']);
  });

  it('is the first one first, if they came the other way round', () => {
    const { held, due } = holding('a2', 'a1');
    const [first] = held.due(0);
    expect(first!.event.id).toBe('a1');
    held.done(first!);
    expect(due(0)).toEqual(['a2']);
  });

  it('leaves out what comes behind one that waits, until that is done', () => {
    const { held, due, one } = holding('a1', 'a2', 'a3', 'b1');
    const first = one('a1', 0);
    held.again([first], 1_000, 0);
    expect(due(0)).toEqual(['b1']);
    held.done(first);
    expect(due(20)).toEqual(expect.arrayContaining(['a2']));
  });

  it('does not forget those behind one that is on its way back', () => {
    const { held, due, one } = holding('a1', 'a2');
    const first = one('a1', 0);
    first.due = Infinity;
    expect(due(0)).toEqual([]);
    expect(held.waits(0)).toBeLessThanOrEqual(1_000);
    held.returned(first);
    expect(due(0)).toEqual(['a2']);
  });
});

describe('a batch of which nothing is known', () => {
  it('is tried again together, and none of it is thought to miss another', () => {
    const { held, due } = holding('a1', 'a2', 'b1');
    held.again(held.due(0), 400, 0);
    expect(due(399)).toEqual([]);
    expect(due(400)).toEqual(['a1', 'a2', 'b1']);
    expect(held.due(400).map(({ gapSince }) => gapSince)).toEqual([undefined, undefined, undefined]);
  });
});

describe('an event that fails', () => {
  it('is tried as often as is allowed, later each time, and counts on when it went to another process meanwhile', () => {
    const { held, one } = holding('a1');
    expect(held.failed(one('a1', 0), 0)).toMatchObject({ failures: 1, enough: false });
    const again = one('a1', 1_000);
    held.letGo(again);
    expect(held.size).toBe(0);
    held.came(event('a1'), 'once more');
    expect(held.failed(one('a1', 1_000), 1_000)).toMatchObject({ failures: 2, enough: false });
    expect(held.failed(one('a1', 5_000), 5_000)).toMatchObject({ failures: 3, enough: true });
  });
});

describe('an event whose predecessor has not come', () => {
  it('waits as long as patience lasts', () => {
    const { held, one } = holding('a2');
    expect(held.missed([one('a2', 0)], 0)).toEqual([]);
    expect(held.missed([one('a2', 9_999)], 9_999)).toEqual([]);
    expect(held.missed([one('a2', 10_600)], 10_600)).toHaveLength(1);
  });

  it('waits less when many do', () => {
    const { held, one } = holding('a2', 'b2', 'c2', 'd2', 'e2', 'f2');
    const all = held.due(0);
    expect(held.missed(all, 0)).toEqual([]);
    expect(held.missed([one('a2', 2_600)], 2_600)).toHaveLength(1);
  });

  it('does not wait for one that went back', () => {
    const { held, one } = holding('a1', 'a2');
    const both = held.due(0);
    held.returned(both[0]!);
    expect(held.missed([one('a2', 0)], 0)).toHaveLength(1);
  });
});

it('a message that came twice is told twice, and is one event', () => {
  const { held, one } = holding('a1');
  held.came(event('a1'), 'again');
  expect(held.messages()).toEqual(['message of a1', 'again']);
  held.done(one('a1', 0));
  expect([held.size, held.messages()]).toEqual([0, []]);
});
