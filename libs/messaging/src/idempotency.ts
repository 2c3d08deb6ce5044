import { createHash } from 'node:crypto';
import { DomainError, actorKey } from '@banyan/kernel';
import type { Envelope } from './envelope.js';
import type { WritingContext } from './unit-of-work.js';

/** How long a key is remembered, ms (IETF draft "The Idempotency-Key HTTP Header Field" leaves it to the server). */
export const KEY_LIFETIME = 24 * 60 * 60 * 1000;

/** Codes of the bus itself; contracts add their own. */
export const IDEMPOTENCY_KEY_REUSED = 'IDEMPOTENCY_KEY_REUSED';
export const IDEMPOTENCY_IN_PROGRESS = 'IDEMPOTENCY_IN_PROGRESS';

interface Row {
  free: boolean;
  request_hash: string | null;
  output: string | null;
  created_at: Date | null;
}

/* Locks the key to the end of the transaction, so that a second call sees "still running" instead of waiting. */
const lookUp = 'select * from banyan_recall($1, $2, $3)';

/**
 * Runs `effect` once per (actor, operation, key) and body, and answers the stored output to every later call.
 * Throws 422 for the same key with another body, 409 while the first call is still running. A failed call stores
 * nothing: it had no effect, so it may be tried again.
 */
export async function once<T>(
  idempotencyKey: string | undefined,
  envelope: Envelope,
  input: unknown,
  ctx: WritingContext,
  effect: () => Promise<T>,
): Promise<{ output: T; replayed: boolean }> {
  if (idempotencyKey === undefined) return { output: await effect(), replayed: false };
  const scope = [actorKey(envelope.actor), `${envelope.context}.${envelope.operation}`, idempotencyKey];
  const hash = createHash('sha256').update(JSON.stringify(input)).digest('hex');
  const row = (
    await ctx.tx.query<Row & Record<string, unknown>>({ name: 'banyan_idempotency', text: lookUp, values: scope })
  ).rows[0]!;
  const live = row.output !== null && ctx.now.getTime() - row.created_at!.getTime() < KEY_LIFETIME;
  if (live) {
    if (row.request_hash !== hash)
      throw new DomainError(IDEMPOTENCY_KEY_REUSED, 'mismatch', 'This idempotency key was used with another request');
    return { output: JSON.parse(row.output!) as T, replayed: true };
  }
  if (!row.free)
    throw new DomainError(IDEMPOTENCY_IN_PROGRESS, 'conflict', 'A request with this idempotency key is still running', {
      retryAfterMs: 1000,
    });
  if (row.output !== null)
    await ctx.tx.query('delete from idempotency_key where actor = $1 and operation = $2 and key = $3', scope);
  const output = await effect();
  const [actor, operation, key] = scope as [string, string, string];
  ctx.remember({ actor, operation, key, request_hash: hash, output: JSON.stringify(output), created_at: ctx.now });
  return { output, replayed: false };
}
