import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits until `fn` neither throws nor gives false or undefined, and returns what it gave. Specs wait with this and
 * never with a sleep. After `timeoutMs` (15,000: what a busy machine may need, nobody's promise) it throws the last
 * failure; `intervalMs` (20) lies between two tries.
 */
export async function eventually<T>(
  fn: () => T | Promise<T>,
  { timeoutMs = 15_000, intervalMs = 20 }: { timeoutMs?: number; intervalMs?: number } = {},
): Promise<Exclude<T, false | undefined>> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    let last: unknown;
    try {
      const value = await fn();
      if (value !== false && value !== undefined) return value as Exclude<T, false | undefined>;
      last = new Error(`it was ${value}`);
    } catch (error) {
      last = error;
    }
    if (Date.now() >= deadline)
      throw new Error(`Not within ${timeoutMs} ms: ${last instanceof Error ? last.message : String(last)}`, {
        cause: last,
      });
    await sleep(intervalMs);
  }
}
