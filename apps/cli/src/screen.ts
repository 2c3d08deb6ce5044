import type { ContextStatus } from '@banyan/extraction/status';
import { styleText } from 'node:util';
import type { Engines } from './engines.js';
import type { CommandError } from './exit.js';

type Lag = ContextStatus['lag'];

/** What happens while a command runs. With `--json` each is one line. */
export type Happening =
  | { event: 'step'; name: string; ms: number }
  | { event: 'notice'; message: string }
  | { event: 'log'; process: string; level: 'warn' | 'error'; message: string }
  | ({ event: 'progress' } & ContextStatus)
  | { event: 'copying'; percent: number; rows: number; rowsPerSecond: number; lag: Lag }
  | { event: 'caught-up'; rows: number; lag: Lag }
  | { event: 'behind'; lag: Lag }
  | { event: 'ready'; ms: number; urls: Record<string, string>; seeded: boolean; engines: Engines };

/** The terminal, or one JSON object a line for programs. */
export class Screen {
  constructor(readonly json: boolean) {}

  tell(happening: Happening, text?: string): void {
    if (this.json) return this.line(happening);
    if (text !== undefined) process.stdout.write(`${text}\n`);
    else if (happening.event === 'notice') process.stdout.write(`${happening.message}\n`);
    else if (happening.event === 'log') {
      const level = styleText(happening.level === 'warn' ? 'yellow' : 'red', happening.level.padEnd(5));
      process.stdout.write(`${styleText('dim', happening.process)} ${level} ${happening.message}\n`);
    }
  }

  /** The last line of a command that did what it was asked. */
  done(result: Record<string, unknown>, text?: string): void {
    if (this.json) this.line({ ok: true, ...result });
    else if (text !== undefined) process.stdout.write(`${text}\n`);
  }

  /** The last line of one that could not. */
  failed(error: CommandError): void {
    const { code, detail, next } = error;
    if (this.json) this.line({ ok: false, error: { code, detail, next } });
    else process.stderr.write(`${error.message}\n`);
  }

  /** An answer of more than one line; nothing with `--json`, where the result holds it. */
  page(text: string): void {
    if (!this.json) process.stdout.write(`${text}\n`);
  }

  private line(value: unknown): void {
    process.stdout.write(`${JSON.stringify(value)}\n`);
  }
}
