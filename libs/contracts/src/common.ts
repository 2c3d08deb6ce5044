import { z } from 'zod';

/** An instant as RFC 3339 text in UTC: contracts carry JSON only. */
export const Instant = z.iso.datetime().meta({ id: 'Instant' });

/** Free text that a database can hold: Postgres takes no NUL, and UTF-8 no half of a surrogate pair. Trimmed. */
export const text = (max: number) =>
  z
    .string()
    .refine((value) => value.isWellFormed() && !value.includes('\0'), 'must not hold NUL or half a surrogate pair')
    .trim()
    .max(max);

export const Sku = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'letters, digits, dot, dash or underscore; at most 64 characters')
  .meta({ id: 'Sku' });

export const Quantity = z.int().min(1).max(1_000);

export const Address = z
  .strictObject({
    name: z.string().trim().min(1).max(200),
    line1: z.string().trim().min(1).max(200),
    line2: z.string().trim().max(200).optional(),
    city: z.string().trim().min(1).max(100),
    postalCode: z.string().trim().min(1).max(20),
    country: z.string().regex(/^[A-Z]{2}$/, 'an ISO 3166-1 alpha-2 code such as DE'),
  })
  .meta({ id: 'Address' });
export type Address = z.output<typeof Address>;

/** What a list operation takes: `limit` 1 to 100, default 20, and the opaque cursor of the page before. */
export const PageInput = z.strictObject({
  limit: z.int().min(1).max(100).default(20),
  cursor: z.string().max(512).optional(),
});

/** What a list operation answers. `nextCursor` is null on the last page. */
export const page = <T extends z.ZodType>(item: T) =>
  z.strictObject({ items: z.array(item), nextCursor: z.string().nullable() });

export const Nothing = z.strictObject({});

/** An id that nothing has: "there is no such thing" is an answer, too, and both sides have to give it. */
export const NOBODY = '00000000-0000-7000-8000-000000000000';
