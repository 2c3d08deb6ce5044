import { existsSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';

let folder: string | undefined;

/** Fault tests name a folder (`BANYAN_FAIL_POINTS`); without one, fail points cost one comparison. */
export function armFailPoints(path: string | undefined): void {
  folder = path;
}

/**
 * A step after which a crash must do no harm. Where the armed folder holds a file of this name, the process takes the
 * file away and kills itself with SIGKILL: once, so that it can be started again.
 */
export function failPoint(name: string): void {
  if (folder === undefined) return;
  const path = join(folder, name);
  if (!existsSync(path)) return;
  unlinkSync(path);
  process.kill(process.pid, 'SIGKILL');
}
