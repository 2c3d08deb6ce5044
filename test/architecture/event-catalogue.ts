import { contracts } from '@banyan/contracts';
import type { AnyEvent } from '@banyan/kernel';
import { z } from 'zod';

/** The part of JSON Schema that z.toJSONSchema writes and that matters for growing an event. */
export interface Schema {
  type?: string | string[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
  enum?: unknown[];
  [keyword: string]: unknown;
}

export interface CataloguedEvent {
  version: number;
  aggregate: string;
  data: Schema;
}

/** By full name, such as `orders.OrderPlaced`. */
export type Catalogue = Record<string, CataloguedEvent>;

/** What the contracts publish today, as JSON Schemas with nothing left to look up. */
export function catalogueOf(events: readonly AnyEvent[] = allEvents()): Catalogue {
  return Object.fromEntries(
    events.map(({ name, version, aggregate, data }) => [name, { version, aggregate, data: schemaOf(data) }]),
  );
}

const allEvents = (): AnyEvent[] =>
  contracts.flatMap(({ events }) => Object.values(events as Record<string, AnyEvent>));

function schemaOf(type: z.ZodType): Schema {
  const whole = z.toJSONSchema(type, { io: 'output' }) as Schema & { $defs?: Record<string, Schema> };
  const { $defs = {}, $schema: _, ...schema } = whole;
  const inlined = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(inlined);
    if (typeof value !== 'object' || value === null) return value;
    const schema = value as Record<string, unknown>;
    const target = typeof schema.$ref === 'string' ? $defs[schema.$ref.replace('#/$defs/', '')] : undefined;
    const kept = Object.entries({ ...target, ...schema }).filter(([key, part]) => {
      // Keywords are text here; a field that is called `id` or `pattern` is a schema, and stays.
      if (typeof part !== 'string') return true;
      // A known format says it all; its pattern is zod's own and changes with zod.
      return key !== '$ref' && key !== 'id' && !(key === 'pattern' && typeof schema.format === 'string');
    });
    return Object.fromEntries(kept.map(([key, part]) => [key, inlined(part)]));
  };
  return inlined(schema) as Schema;
}

/**
 * What a reader of the released catalogue would stumble over in today's, as lines; empty when it only grew.
 * Allowed without a new version: a new event, and a new optional field. A greater version allows anything else,
 * except to lose the event: its subscribers would wait for ever.
 */
export function incompatibilities(released: Catalogue, current: Catalogue): string[] {
  return Object.entries(released).flatMap(([name, before]) => {
    const now = current[name];
    if (!now) return [`${name}: the event is gone`];
    if (now.version < before.version) return [`${name}: version ${before.version} went back to ${now.version}`];
    if (now.version > before.version) return [];
    if (now.aggregate !== before.aggregate)
      return [`${name}: the aggregate ${before.aggregate} became ${now.aggregate}`];
    return changes(before.data, now.data, '').map((change) => `${name}${change}`);
  });
}

const structural = new Set(['properties', 'required', 'items', 'anyOf', 'additionalProperties']);

function changes(before: Schema, now: Schema, path: string): string[] {
  const found: string[] = [];
  for (const keyword of new Set([...Object.keys(before), ...Object.keys(now)]))
    if (!structural.has(keyword) && JSON.stringify(before[keyword]) !== JSON.stringify(now[keyword]))
      found.push(`${path}: ${keyword} ${JSON.stringify(before[keyword])} became ${JSON.stringify(now[keyword])}`);

  for (const [field, schema] of Object.entries(before.properties ?? {})) {
    const after = now.properties?.[field];
    if (after) found.push(...changes(schema, after, `${path}/${field}`));
    else found.push(`${path}/${field}: the field is gone`);
  }
  const [had, has] = [before.required ?? [], now.required ?? []];
  for (const field of has) if (!had.includes(field)) found.push(`${path}/${field}: became required`);
  for (const field of had)
    if (!has.includes(field) && now.properties?.[field]) found.push(`${path}/${field}: became optional`);

  if (before.items && now.items) found.push(...changes(before.items, now.items, `${path}/*`));
  else if (before.items ?? now.items) found.push(`${path}: items changed`);

  const [was, is] = [before.anyOf ?? [], now.anyOf ?? []];
  if (was.length !== is.length) found.push(`${path}: ${was.length} alternatives became ${is.length}`);
  else was.forEach((schema, index) => found.push(...changes(schema, is[index] as Schema, `${path}|${index}`)));
  return found;
}
