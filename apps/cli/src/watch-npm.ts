import { readFileSync } from 'node:fs';
import { isAlive } from './is-alive.js';

/**
 * Tells, as often as it is asked, whether the npm that started us still lives. It waits for us, so when it is gone it
 * was killed, and nobody could reach us with Ctrl-C any more. Between npm and us there may be a shell: Debian's stays
 * and would outlive npm, others put us in their place.
 */
export function watchNpm(): () => boolean {
  const parent = process.ppid;
  const npm = parentBehindShell(parent);
  return () => process.ppid === parent && (npm === undefined || isAlive(npm));
}

/** On Linux, the parent of the process if that is a shell. */
function parentBehindShell(pid: number): number | undefined {
  try {
    const [, name, rest] = /^\d+ \((.*)\) . (.*)$/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? [];
    return name && /^(ba|da)?sh$/.test(name) ? Number.parseInt(rest ?? '', 10) : undefined;
  } catch {
    return undefined;
  }
}
