import { randomFillSync } from 'node:crypto';

/* One call of the random source for 170 requests: 0.3 us each, against 3.6 us for 24 bytes at a time. */
const pool = Buffer.alloc(170 * 24);
let next = pool.length;

/** A new trace (W3C Trace Context): sampled, because the next hop may record it even if nobody does here. */
export function newTraceparent(): string {
  if (next >= pool.length) {
    randomFillSync(pool);
    next = 0;
  }
  const ids = pool.toString('hex', next, next + 24);
  next += 24;
  return `00-${ids.slice(0, 32)}-${ids.slice(32)}-01`;
}

export const traceIdOf = (traceparent: string): string => traceparent.slice(3, 35);
