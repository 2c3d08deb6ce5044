import type { OwnerRow } from '@banyan/extraction/protocol';
import { describe, expect, it } from 'vitest';
import { type Model, search, sound } from './protocol-search.js';

// Many changes of owner, and many coordinators: each alone, because together they are ten times the states.
it.each([
  { epochs: 5, coordinators: 2 },
  { epochs: 4, coordinators: 3 },
])(
  "never has two owners, never opens a side without the other's writes, and is never stuck: %o",
  (limits) => {
    const { states, violation } = search(sound, limits);
    expect(violation).toBeUndefined();
    // A search that ends early finds nothing either.
    expect(states).toBeGreaterThan(50_000);
  },
  180_000,
);

const faults: Record<string, Partial<Model>> = {
  'close without compare-and-set': {
    close: (row, expected, to) => {
      const epoch = expected + 1;
      return row.side === to ? null : { row: { ...row, open: false, epoch }, message: { epoch, to } };
    },
  },
  'reopen without compare-and-set': {
    reopen: (row: OwnerRow, closedAt) => ({ ...row, open: true, epoch: closedAt + 1 }),
  },
  'reopen without the bar before it': {
    nextStep: (rows, want, facts) => {
      const step = sound.nextStep(rows, want, facts);
      if (step.do !== 'bar') return step;
      return { do: 'reopen', side: step.side === 'service' ? 'monolith' : 'service', closedAt: step.below - 1 };
    },
  },
  'a bar that looks at open instead of the epoch': {
    bar: (row, below) =>
      row.open && row.epoch >= below - 1 ? null : { ...row, minEpoch: Math.max(row.minEpoch, below) },
  },
  'open without compare-and-set': { open: (row, epoch) => ({ ...row, open: true, epoch }) },
  'an open that does not see the bar': {
    open: (row, epoch) => (row.open || row.epoch >= epoch ? null : { ...row, open: true, epoch }),
  },
  'a coordinator that opens early': { opensEarly: true },
  'a mark apart from the data': { markApart: true },
  'a coordinator that never calls off': {
    nextStep: (rows, want, facts) => {
      const step = sound.nextStep(rows, want, facts);
      return step.do === 'reopen' ? { do: 'wait' } : step;
    },
  },
};

describe('The search finds a seeded fault:', () => {
  it.each(Object.entries(faults))('%s', { timeout: 180_000 }, (_, fault) => {
    const { violation } = search({ ...sound, ...fault }, { epochs: 5, coordinators: 2 });
    expect(violation).toBeDefined();
    expect(violation!.trace.length).toBeGreaterThan(3);
  });
});
