import { createHash } from 'node:crypto';
import { v7 } from 'uuid';
import { z } from 'zod';

/** An identifier: UUIDv7 (RFC 9562), so ids sort by the time they were made and need no sequence. */
export const Id = z.uuid().meta({ id: 'Id' });
export type Id = string;

export const newId = (): Id => v7();

/**
 * The `index`-th id that a message with id `seed` made at time `at` may hand out. The same message always
 * yields the same ids, so a replayed command writes the same rows.
 */
export function derivedId(seed: Id, at: Date, index: number): Id {
  return v7({ msecs: at.getTime(), random: createHash('sha256').update(`${seed}#${index}`).digest().subarray(0, 16) });
}

/** The moment, in ms since the epoch, that a UUIDv7 carries. */
export const timeOfId = (id: Id): number => parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
