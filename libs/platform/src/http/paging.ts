import { createHash } from 'node:crypto';
import { z } from 'zod';
import { fail } from './errors.js';

/** The query string of every list. Extend it where a list can be filtered: `PageQuery.extend({ q: … })`. */
export const PageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(100).default(20).describe('How many items at most'),
  cursor: z.string().min(1).max(512).optional().describe('`nextCursor` of the page before'),
});
export type PageQuery = z.output<typeof PageQuery>;

/** What every list answers: the items, and where the next page starts (null on the last one). */
export const Page = <T extends z.ZodType>(item: T) =>
  z.strictObject({ items: z.array(item), nextCursor: z.string().nullable() });

/** Eight characters are enough to tell a cursor of ours from an edited one; a cursor guards nothing secret. */
const checksum = (text: string): string =>
  createHash('sha256').update(`banyan.cursor.1:${text}`).digest('base64url').slice(0, 8);

/** An opaque cursor for the position after which the next page starts: the values of the columns it is sorted by. */
export function encodeCursor(position: unknown): string {
  const text = Buffer.from(JSON.stringify(position)).toString('base64url');
  return `${text}.${checksum(text)}`;
}

/**
 * The position in a cursor, checked against `schema`; undefined for the first page.
 * Throws CURSOR_INVALID (400) for anything that `encodeCursor` did not make for such a list.
 */
export function decodeCursor<T extends z.ZodType>(cursor: string | undefined, schema: T): z.output<T> | undefined {
  if (cursor === undefined) return undefined;
  const [text = '', sum] = cursor.split('.', 2);
  if (`${text}.${sum}` === cursor && sum === checksum(text)) {
    const position = schema.safeParse(JSON.parse(Buffer.from(text, 'base64url').toString()));
    if (position.success) return position.data;
  }
  throw fail('CURSOR_INVALID', 'Start again without a cursor', {
    errors: [{ pointer: '/cursor', detail: 'was not handed out by this list' }],
  });
}
