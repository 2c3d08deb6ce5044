import { execFile } from 'node:child_process';

/**
 * Runs a script that ends with a line of JSON: its value. What takes longer than `limitMs` is told to stop, and stops what
 * it has started; a hook that waits for this has to give it the time to.
 */
export async function jsonRun<T>(script: string, args: readonly string[], limitMs: number): Promise<T> {
  const { out, err, late } = await new Promise<{ out: string; err: string; late: boolean }>((done) =>
    execFile(
      process.execPath,
      [script, '--json', ...args],
      { maxBuffer: 64 << 20, timeout: limitMs },
      // That it ends with another code than 0 is no error: it has found something.
      (error, stdout, stderr) => done({ out: stdout, err: stderr, late: error?.killed ?? false }),
    ),
  );
  const last = out.trimEnd().split('\n').at(-1);
  if (!last?.startsWith('{'))
    throw new Error(`The run came to no end${late ? ` in ${limitMs / 1_000} s` : ''}:\n${err}`);
  return JSON.parse(last) as T;
}
