import { type FileHandle, open } from 'node:fs/promises';

export interface LogLine {
  level: 'warn' | 'error';
  message: string;
}

const EVERY_MS = 250;
const LINES_AT_ONCE = 20;

/**
 * Follows a log file that a child writes by itself, and passes on what an operator should see. The child has the file
 * and not a pipe: it never waits for us, and its last words are kept when we are gone.
 */
export class LogFollower {
  private timer: NodeJS.Timeout | undefined;
  private rest = '';
  private reading = Promise.resolve();
  private readonly buffer = Buffer.allocUnsafe(1 << 20);

  private constructor(
    private readonly file: FileHandle,
    private position: number,
    private readonly onLine: (line: LogLine) => void,
  ) {}

  static async start(path: string, position: number, onLine: (line: LogLine) => void): Promise<LogFollower> {
    const follower = new LogFollower(await open(path, 'r'), position, onLine);
    follower.timer = setInterval(() => void follower.catchUp(), EVERY_MS).unref();
    return follower;
  }

  /** Reads what has been written until now. */
  catchUp(): Promise<void> {
    this.reading = this.reading.then(() => this.read()).catch(() => {});
    return this.reading;
  }

  async stop(): Promise<void> {
    clearInterval(this.timer);
    await this.catchUp();
    await this.file.close();
  }

  private async read(): Promise<void> {
    const found: LogLine[] = [];
    for (;;) {
      const { bytesRead } = await this.file.read(this.buffer, 0, this.buffer.length, this.position);
      if (bytesRead === 0) break;
      this.position += bytesRead;
      const lines = (this.rest + this.buffer.toString('utf8', 0, bytesRead)).split('\n');
      this.rest = lines.pop() ?? '';
      found.push(...lines.flatMap((line) => noteworthy(line) ?? []));
    }
    // The last ones: what a process says before it ends is what matters most.
    const hidden = found.length - LINES_AT_ONCE;
    if (hidden > 0) this.onLine({ level: 'warn', message: `${hidden} more before these: see the log file` });
    for (const line of found.slice(-LINES_AT_ONCE)) this.onLine(line);
  }
}

/** Nest's own logger, until the app's is in place. */
const nestChatter = /^\[Nest\] .* (LOG|DEBUG|VERBOSE) \[/;

/** Warnings and errors of pino, and any line that is not JSON: a crash writes its stack as it is. */
export function noteworthy(line: string): LogLine | undefined {
  if (line.trim() === '' || line.startsWith('{"level":30') || line.startsWith('{"level":20')) return undefined;
  if (nestChatter.test(line)) return undefined;
  if (!line.startsWith('{')) return { level: 'error', message: line };
  try {
    const { level, msg, err } = JSON.parse(line) as {
      level?: number | string;
      msg?: string;
      err?: { message?: string };
    };
    const severity = typeof level === 'number' ? level : ({ warn: 40, error: 50, fatal: 60 }[level ?? ''] ?? 0);
    if (severity < 40) return undefined;
    const cause = err?.message && !msg?.includes(err.message) ? err.message : undefined;
    return { level: severity < 50 ? 'warn' : 'error', message: [msg, cause].filter(Boolean).join(': ') };
  } catch {
    return { level: 'error', message: line };
  }
}
