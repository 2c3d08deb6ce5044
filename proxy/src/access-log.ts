import type { Side } from '@banyan/kernel';
import { type DestinationStream, type Logger, destination, pino } from 'pino';

export interface AccessLine {
  method: string;
  /** The route's prefix and not the path: paths hold ids, and queries hold worse. */
  route: string;
  context: string;
  side: Side | 'proxy';
  status: number;
  ms: number;
  traceId: string;
}

/** One line a request, batched: a write of its own for each would cost more than the request. */
export class AccessLog {
  readonly #log: Logger;
  readonly #flush: () => void;

  constructor(level: string, to: DestinationStream & { flushSync?(): void } = standardOutput()) {
    this.#log = pino(
      { level, base: { service: 'proxy' }, timestamp, formatters: { level: (label) => ({ level: label }) } },
      to,
    );
    this.#flush = () => to.flushSync?.();
  }

  write(line: AccessLine): void {
    this.#log.info(line, 'request');
  }

  flush(): void {
    try {
      this.#flush();
    } catch {
      // Nothing was written yet, or nobody reads any more.
    }
  }
}

/* Ten lines of a busy proxy share a millisecond, and making its text costs as much as the rest of the line. */
let lastTime = 0;
let timeText = '';

function timestamp(): string {
  const now = Date.now();
  if (now !== lastTime) {
    lastTime = now;
    timeText = `,"time":"${new Date(now).toISOString()}"`;
  }
  return timeText;
}

const standardOutput = () => destination({ fd: 1, sync: false, minLength: 8 * 1024, periodicFlush: 200 });
