import { describe, expect, it } from 'vitest';
import {
  deepImports,
  forbiddenImports,
  type ImportTable,
  importCycles,
  loadedAtStart,
  namelessExports,
} from './rules.js';
import { SourceGraph, projectOf } from './source-graph.js';

/** The whole architecture: who may import whom. */
const table: ImportTable = {
  kernel: [],
  contracts: ['kernel'],
  platform: ['kernel'],
  messaging: ['platform', 'kernel'],
  extraction: ['messaging', 'platform', 'kernel'],
  replication: ['platform', 'kernel'],
  'contexts/*': ['contracts', 'messaging', 'platform', 'kernel'],
  testing: ['contexts/*', 'contracts', 'messaging', 'platform', 'kernel'],
  'apps/*': ['contexts/*', 'extraction', 'replication', 'contracts', 'messaging', 'platform', 'kernel'],
  proxy: ['extraction', 'contracts', 'platform', 'kernel'],
};

const banyan = SourceGraph.read();

/** The processes around the apps, and the commands: there are many, and Nest and Prisma are 0.5 s of CPU each time. */
const light = [
  ...['proxy/src/main.ts', 'proxy/src/index.ts', 'apps/bridge/src/main.ts', 'apps/psp-simulator/src/main.ts'],
  ...banyan.files.filter((file) => /^apps\/cli\/src\/(main|[a-z-]+\.command)\.ts$/.test(file)),
];
const heavy = /^(@nestjs\/|nestjs-|@prisma\/|bullmq$)/;

describe('The source of Banyan', () => {
  it('imports only what lies below it', () => {
    expect(forbiddenImports(banyan, table)).toEqual([]);
  });

  it('has contexts that never import one another', () => {
    const contexts = banyan.imports.filter(({ from }) => projectOf(from).startsWith('contexts/'));
    const others = contexts.filter(
      ({ from, to }) => to && projectOf(to).startsWith('contexts/') && projectOf(to) !== projectOf(from),
    );
    expect(others).toEqual([]);
  });

  it('has no files that import each other in a circle', () => {
    expect(importCycles(banyan)).toEqual([]);
  });

  it('enters a library by its door only', () => {
    expect(deepImports(banyan)).toEqual([]);
  });

  it('exports by name', () => {
    expect(namelessExports(banyan)).toEqual([]);
  });

  it('starts what is small without Nest and Prisma', () => {
    expect(light.length).toBeGreaterThan(10);
    expect(light.flatMap((entry) => loadedAtStart(banyan, entry, heavy))).toEqual([]);
    expect(loadedAtStart(banyan, 'apps/monolith/src/main.ts', heavy)).not.toEqual([]);
  });

  it('was really read: every project has files, and imports were followed', () => {
    const projects = new Set(banyan.files.map(projectOf));
    expect([...projects]).toEqual(
      expect.arrayContaining(['kernel', 'contracts', 'messaging', 'platform', 'contexts/orders', 'apps/monolith']),
    );
    expect(banyan.imports.filter(({ to }) => to).length).toBeGreaterThan(100);
  });
});

describe('The checks above are seen to fail', () => {
  const seed = 'libs/contexts/orders/src/seeded.ts';

  it.each([
    ['a context importing another context', seed, `import { InventoryModule } from '@banyan/inventory';`],
    ['the same as a type only', seed, `import type { InventoryModule } from '@banyan/inventory';`],
    ['the same while running', seed, `export const load = () => import('@banyan/inventory');`],
    ['the kernel importing the platform', 'libs/kernel/src/seeded.ts', `import '@banyan/platform/config';`],
    ['contracts importing messaging', 'libs/contracts/src/seeded.ts', `import '@banyan/messaging';`],
    ['an app importing an app', 'apps/cli/src/seeded.ts', `import '@banyan/monolith';`],
    ['code importing the testing library', seed, `import { eventually } from '@banyan/testing';`],
  ])('on %s', (_, file, text) => {
    expect(forbiddenImports(banyan.plus({ [file]: text }), table)).toContainEqual(expect.stringContaining(file));
  });

  it.each([
    ['a door with Nest behind it', `import { Database } from '@banyan/platform/database';`],
    ['Nest itself, handed on', `export { Logger } from '@nestjs/common';`],
  ])('on a small process that loads %s', (_, text) => {
    const seeded = banyan.plus({ 'proxy/src/seeded.ts': text, 'proxy/src/main.ts': `import './seeded.js';` });
    expect(loadedAtStart(seeded, 'proxy/src/main.ts', heavy)).toContainEqual(expect.stringContaining('seeded.ts'));
    const later = seeded.plus({ 'proxy/src/seeded.ts': text.replace(/^(import|export)/, '$1 type') });
    expect(loadedAtStart(later, 'proxy/src/main.ts', heavy)).toEqual([]);
  });

  it('but a spec may import the testing library', () => {
    const spec = { 'libs/contexts/orders/src/seeded.spec.ts': `import { eventually } from '@banyan/testing';` };
    expect(forbiddenImports(banyan.plus(spec), table).join()).not.toContain('seeded');
  });

  it('on a circle of three files', () => {
    const circle = banyan.plus({
      'libs/kernel/src/a.ts': `import { b } from './b.js';`,
      'libs/kernel/src/b.ts': `export { c } from './c.js';`,
      'libs/kernel/src/c.ts': `import type { a } from './a.js';`,
    });
    expect(importCycles(circle)).toContainEqual(
      'libs/kernel/src/a.ts -> libs/kernel/src/b.ts -> libs/kernel/src/c.ts -> libs/kernel/src/a.ts',
    );
  });

  it.each([
    ['into the source of a library', `import { Money } from '@banyan/kernel/src/money.js';`],
    ['over the fence', `import { Money } from '../../../kernel/src/money.js';`],
  ])('on a deep import %s', (_, text) => {
    expect(deepImports(banyan.plus({ [seed]: text }))).toContainEqual(expect.stringContaining(seed));
  });

  it('on export *', () => {
    expect(namelessExports(banyan.plus({ [seed]: `export * from './orders.module.js';` }))).toContain(
      `${seed}: export *`,
    );
  });
});
