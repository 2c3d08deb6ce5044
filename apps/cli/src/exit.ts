/** What the exit code of a command means; the table of README.md. */
export const exitCodes = {
  FAILED: 1,
  BAD_USAGE: 2,
  ALREADY_RUNNING: 3,
  PORT_IN_USE: 4,
  NOT_RUNNING: 5,
  UNREACHABLE: 6,
  REFUSED: 7,
  BLOCKED: 8,
  TIMEOUT: 9,
  INTERRUPTED: 130,
} as const;

/** A command that cannot go on: one line that says what is wrong, and what to do next. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  constructor(
    readonly code: keyof typeof exitCodes,
    readonly detail: string,
    readonly next: string,
  ) {
    super(`${detail} ${next}`.trim());
  }
}

/** With a full stop, where none is. */
export const sentence = (text: string): string => (/[.!?:]$/.test(text) ? text : `${text}.`);
