import { execFile } from 'node:child_process';
import { link, readFile, readlink, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A process for good: after a crash, and always in a container, its number may belong to another one. */
export interface ProcessId {
  pid: number;
  /** When it began, in whatever text the system tells it. */
  born: string;
}

export const thisProcess = async (): Promise<ProcessId> => ({
  pid: process.pid,
  born: (await birthOf(process.pid)) ?? '',
});

/** Is this very process still there? A zombie is not. */
export const isAlive = async ({ pid, born }: ProcessId): Promise<boolean> => (await birthOf(pid)) === born;

/** When a living process began; undefined when there is none of this number. */
export async function birthOf(pid: number): Promise<string | undefined> {
  if (process.platform === 'linux') {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
    // Fields after the name, which stands in brackets and may hold spaces: [0] is the state, [19] the start time.
    const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields && fields[0] !== 'Z' ? fields[19] : undefined;
  }
  if (process.platform === 'win32') return exists(pid) ? '' : undefined;
  const { stdout } = await run('ps', ['-o', 'state=,lstart=', '-p', String(pid)]).catch(() => ({ stdout: '' }));
  const [state, ...born] = stdout.trim().split(/\s+/);
  return state && !state.startsWith('Z') ? born.join(' ') : undefined;
}

/** Does the process run in this folder, as a Postgres runs in its data folder? */
export async function worksIn(pid: number, folder: string): Promise<boolean> {
  if (process.platform === 'linux') {
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
    return cwd !== undefined && cwd === (await realpath(folder));
  }
  if (process.platform === 'win32') return exists(pid);
  const { stdout } = await run('ps', ['-o', 'command=', '-p', String(pid)]).catch(() => ({ stdout: '' }));
  return stdout.includes(folder);
}

function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Runs `work` while no other process does under the same file. A lock whose holder died is taken over. */
export async function exclusively<T>(lockFile: string, work: () => Promise<T>): Promise<T> {
  const mine = JSON.stringify(await thisProcess());
  const draft = `${lockFile}.${process.pid}`;
  await writeFile(draft, mine);
  try {
    // A link is made whole or not at all, so nobody ever reads a lock without its holder.
    while (
      !(await link(draft, lockFile).then(
        () => true,
        () => false,
      ))
    ) {
      const seen = await readFile(lockFile, 'utf8').catch(() => undefined);
      if (seen === undefined) continue;
      if (await isAlive(JSON.parse(seen) as ProcessId)) await sleep(25);
      else {
        const aside = `${draft}.stale`;
        const taken = await rename(lockFile, aside).then(
          () => true,
          () => false,
        );
        // Another process may have replaced the dead lock by its own in between: give that one back.
        if (taken && (await readFile(aside, 'utf8')) !== seen) await link(aside, lockFile).catch(() => {});
        await rm(aside, { force: true });
      }
    }
  } finally {
    await rm(draft, { force: true });
  }
  try {
    return await work();
  } finally {
    await rm(lockFile, { force: true });
  }
}
