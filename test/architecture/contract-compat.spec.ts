import { contracts } from '@banyan/contracts';
import { event } from '@banyan/kernel';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Catalogue, catalogueOf, incompatibilities } from './event-catalogue.js';
import { root } from './source-graph.js';

const file = join(root, 'docs/event-catalogue.json');
const current = catalogueOf();

describe('The event catalogue', () => {
  const released = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Catalogue) : {};
  const broken = incompatibilities(released, current);
  // What subscribers rely on is never written over: raise the version (or, before a first release, delete the file).
  if (process.env.UPDATE && broken.length === 0) writeFileSync(file, `${JSON.stringify(current, null, 2)}\n`);

  it('has grown compatibly since the last release, or the event has a new version', () => {
    expect(broken).toEqual([]);
  });

  it('in docs/ lists exactly what the contracts publish (UPDATE=1 rewrites it)', () => {
    expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual(current);
  });

  it('holds every event of every context', () => {
    expect(Object.keys(current).length).toBe(contracts.flatMap(({ events }) => Object.keys(events)).length);
  });
});

describe('An event that changed under the same version', () => {
  const Line = z.strictObject({ sku: z.string(), quantity: z.int() });
  const fields = { orderId: z.string(), lines: z.array(Line), reason: z.enum(['a', 'b']), note: z.string().nullable() };
  const of = (data: z.ZodType, version = 1, aggregate = 'order'): Catalogue =>
    catalogueOf([{ ...event(version, aggregate, data), name: 'orders.Seeded' }]);
  const before = of(z.strictObject(fields));
  const { note: _, ...withoutNote } = fields;

  it.each([
    ['lost a field', z.strictObject(withoutNote), 'orders.Seeded/note: the field is gone'],
    ['gained a required field', z.strictObject({ ...fields, more: z.string() }), 'orders.Seeded/more: became required'],
    [
      'changed a type',
      z.strictObject({ ...fields, orderId: z.int() }),
      'orders.Seeded/orderId: type "string" became "integer"',
    ],
    [
      'changed inside a list',
      z.strictObject({ ...fields, lines: z.array(Line.omit({ sku: true })) }),
      'orders.Seeded/lines/*/sku: the field is gone',
    ],
    [
      'may leave out a field',
      z.strictObject({ ...fields, orderId: z.string().optional() }),
      'orders.Seeded/orderId: became optional',
    ],
    [
      'has other words',
      z.strictObject({ ...fields, reason: z.enum(['a', 'c']) }),
      'orders.Seeded/reason: enum ["a","b"] became ["a","c"]',
    ],
    [
      'is never null any more',
      z.strictObject({ ...fields, note: z.string() }),
      'orders.Seeded/note: type ["string","null"] became "string"',
    ],
  ])('is refused when it %s', (_, data, line) => {
    expect(incompatibilities(before, of(data))).toContain(line);
  });

  it('is refused when it is about another aggregate, is gone, or went back a version', () => {
    expect(incompatibilities(before, of(z.strictObject(fields), 1, 'cart'))).toHaveLength(1);
    expect(incompatibilities(before, {})).toEqual(['orders.Seeded: the event is gone']);
    expect(incompatibilities(of(z.strictObject(fields), 2), before)).toHaveLength(1);
  });

  it('may gain an optional field', () => {
    expect(incompatibilities(before, of(z.strictObject({ ...fields, more: z.string().optional() })))).toEqual([]);
  });

  it('may do all of that with a new version', () => {
    expect(incompatibilities(before, of(z.strictObject({ other: z.int() }), 2))).toEqual([]);
  });
});
