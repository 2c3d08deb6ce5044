import { Readable } from 'node:stream';
import { type ExecutionContext, createParamDecorator } from '@nestjs/common';
import { ApiBody, ApiConsumes } from '@nestjs/swagger';
import type { InputFault } from '@banyan/kernel';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { fail } from './errors.js';
import { onMethod } from './headers.js';
import { parseJson } from './json.js';
import { faultsOf } from './validation.js';

export const NDJSON = 'application/x-ndjson';

/** One line of an upload, counted from 1: a valid value, or what is wrong with it. */
export type NdjsonLine<T> =
  { line: number; value: T; faults?: undefined } | { line: number; value?: undefined; faults: InputFault[] };

interface NdjsonLimits {
  /** A longer line ends the upload with 413. Default 64 KiB. */
  maxLineBytes?: number;
  /** Nothing arriving for this long ends the upload with 408. Default 30 s. */
  idleMs?: number;
}

/**
 * The lines of an NDJSON stream, read only as fast as they are consumed; memory holds one line and one chunk.
 * Empty lines are skipped. Throws BODY_TOO_LARGE for a line over the limit and REQUEST_TIMEOUT when the sender stalls.
 */
export async function* readNdjson<T extends z.ZodType>(
  stream: Readable,
  schema: T,
  { maxLineBytes = 65_536, idleMs = 30_000 }: NdjsonLimits = {},
): AsyncGenerator<NdjsonLine<z.output<T>>> {
  let line = 0;
  let rest: Buffer = Buffer.alloc(0);
  const parse = (bytes: Buffer): NdjsonLine<z.output<T>> | undefined => {
    line += 1;
    if (bytes.length > maxLineBytes) throw fail('BODY_TOO_LARGE', `Line ${line} has more than ${maxLineBytes} bytes`);
    if (bytes.length === 0 || (bytes.length === 1 && bytes[0] === 13)) return undefined;
    let json: unknown;
    try {
      json = parseJson(bytes);
    } catch (error) {
      return { line, faults: [{ pointer: '', detail: (error as Error).message }] };
    }
    const result = schema.safeParse(json);
    return result.success ? { line, value: result.data } : { line, faults: faultsOf(result.error.issues) };
  };
  for await (const chunk of withIdleLimit(stream, idleMs)) {
    let start = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      const part = chunk.subarray(start, end);
      const parsed = parse(rest.length > 0 ? Buffer.concat([rest, part]) : part);
      rest = Buffer.alloc(0);
      start = end + 1;
      if (parsed) yield parsed;
    }
    if (start < chunk.length) rest = Buffer.concat([rest, chunk.subarray(start)]);
    if (rest.length > maxLineBytes) parse(rest);
  }
  const last = rest.length > 0 ? parse(rest) : undefined;
  if (last) yield last;
}

/** The chunks of a stream; only the time spent waiting for the sender counts, not the time we take ourselves. */
async function* withIdleLimit(stream: Readable, idleMs: number): AsyncGenerator<Buffer> {
  // Ending early must leave the socket open: the answer still has to go out on it.
  const chunks = stream.iterator({ destroyOnReturn: false });
  try {
    for (;;) {
      let timer: NodeJS.Timeout | undefined;
      const stalled = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(fail('REQUEST_TIMEOUT', `Nothing arrived for ${idleMs} ms`)), idleMs);
      });
      const next = await Promise.race([chunks.next(), stalled]).finally(() => clearTimeout(timer));
      if (next.done) return;
      yield next.value as Buffer;
    }
  } finally {
    // Not awaited: with a stalled sender it would wait for the chunk that does not come.
    void chunks.return?.();
  }
}

/**
 * Parameter: the lines of an uploaded NDJSON stream, validated one by one and never all in memory.
 * `@NdjsonBody(NewProduct) lines: AsyncIterable<NdjsonLine<NewProduct>>`. Another content type: 415.
 */
export function NdjsonBody(schema: z.ZodType, limits?: NdjsonLimits): ParameterDecorator {
  return createParamDecorator(
    (_: undefined, context: ExecutionContext) => {
      const { body } = context.switchToHttp().getRequest<FastifyRequest>();
      if (!(body instanceof Readable)) throw fail('UNSUPPORTED_MEDIA_TYPE', `Send ${NDJSON}`);
      return readNdjson(body, schema, limits);
    },
    [onMethod(ApiConsumes(NDJSON), ApiBody({ schema: { type: 'string', description: 'One JSON value a line' } }))],
  )();
}
