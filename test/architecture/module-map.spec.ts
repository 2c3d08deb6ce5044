import { contracts } from '@banyan/contracts';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { callsBetween, moduleMap } from './module-map.js';
import { SourceGraph, root } from './source-graph.js';

const page = join(root, 'docs/module-map.md');

describe('The module map', () => {
  const drawn = moduleMap();
  if (process.env.UPDATE) writeFileSync(page, drawn);

  it('in docs/ is what the source says (UPDATE=1 rewrites it)', () => {
    expect(readFileSync(page, 'utf8')).toBe(drawn);
  });

  it('names every context', () => {
    for (const { name } of contracts) expect(drawn).toContain(`### ${name}`);
  });

  it('changes when a context starts to call another one', () => {
    const call = `
      export class Spy {
        constructor(@InjectClient(payments) private readonly money: Client<typeof payments>) {}
        look() { return this.money.payment({ id: '1' }); }
      }`;
    const changed = moduleMap(SourceGraph.read().plus({ 'libs/contexts/catalog/src/spy.ts': call }));
    expect(changed).toContain('  catalog --> payments');
    expect(changed).toContain('payments (`payment`)');
    expect(drawn).not.toContain('  catalog --> payments');
  });

  it('finds the calls that each contract names, and no others: a broker lets no others through', () => {
    const found = callsBetween(SourceGraph.read(), contracts);
    for (const { name, calls = [] } of contracts) {
      const made = found
        .filter(({ from, to }) => from === name && to !== name)
        .flatMap(({ to, operations }) => operations.map((operation) => `${to}.${operation}`));
      expect([...calls].sort(), name).toEqual(made.sort());
    }
    expect(contracts.flatMap(({ calls = [] }) => calls)).toContain('payments.capture');
  });

  it('has a publisher for every event that somebody hears', () => {
    const published = contracts.flatMap(({ events }) => Object.values(events as Record<string, { name: string }>));
    const names = published.map(({ name }) => name);
    expect(contracts.flatMap(({ subscribes }) => subscribes).filter((name) => !names.includes(name))).toEqual([]);
  });
});
