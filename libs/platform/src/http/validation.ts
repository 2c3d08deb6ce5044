import { Readable } from 'node:stream';
import { type ArgumentMetadata, Injectable, type PipeTransform } from '@nestjs/common';
import type { InputFault } from '@banyan/kernel';
import type { z } from 'zod';
import { fail } from './errors.js';

/** RFC 6901: `~` and `/` inside a name are escaped. */
export const pointer = (path: readonly PropertyKey[]): string =>
  path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');

/** Faults past this many are not listed: how many there are is up to the caller. */
const maxFaults = 50;

type Issue = Pick<z.core.$ZodIssue, 'message'> & { path?: readonly unknown[]; code?: string; keys?: string[] };

/** Zod's issues as RFC 9457 clients read them: one fault each, and one for every unknown field. */
export function faultsOf(issues: readonly Issue[]): InputFault[] {
  const faults: InputFault[] = [];
  for (const issue of issues) {
    const path = (issue.path ?? []).map((part) =>
      typeof part === 'object' && part !== null ? (part as { key: PropertyKey }).key : (part as PropertyKey),
    );
    if (issue.code === 'unrecognized_keys' && issue.keys)
      for (const key of issue.keys) faults.push({ pointer: pointer([...path, key]), detail: 'is not a known field' });
    else faults.push({ pointer: pointer(path), detail: issue.message });
    if (faults.length >= maxFaults) return faults.slice(0, maxFaults);
  }
  return faults;
}

const places: Partial<Record<ArgumentMetadata['type'], string>> = {
  body: 'body',
  query: 'query string',
  param: 'path',
};

/**
 * Validates each `@Body`, `@Query` and `@Param` with the schema given to it. One without a schema is a mistake of
 * ours and answers 500: an unchecked object must never reach a filter (`{ "not": "" }` where a string is due).
 */
@Injectable()
export class SchemaPipe implements PipeTransform {
  async transform(value: unknown, metadata: ArgumentMetadata): Promise<unknown> {
    const { schema, type } = metadata;
    const place = places[type];
    if (!schema) {
      // `@RawBody()` hands over bytes, which have no schema.
      if (place && !Buffer.isBuffer(value))
        throw new TypeError(`A handler reads the ${place} without a schema: use @${type}({ schema })`);
      return value;
    }
    if (value instanceof Readable) throw fail('UNSUPPORTED_MEDIA_TYPE', 'Send application/json');
    const result = await schema['~standard'].validate(value);
    if (!result.issues) return result.value;
    throw fail('INPUT_INVALID', `The ${place ?? 'input'} is invalid`, { errors: faultsOf(result.issues as Issue[]) });
  }
}
