import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '@banyan/testing';

/** One of the apps as a process of its own, run as it was built last (`npm run build`), with a parent as `banyan up` is. */
export class AppProcess {
  private constructor(
    readonly child: ChildProcess,
    /** From its start until it said that it was ready, ms. */
    readonly startedInMs: number,
  ) {}

  static async start(app: string, env: Record<string, string>): Promise<AppProcess> {
    const main = join(projectRoot, 'apps', app, 'dist', 'main.js');
    if (!existsSync(main)) throw new Error(`${main} is missing: run npm run build first`);
    const from = performance.now();
    // Vitest's own flags (conditions) would make it look for sources.
    const child = fork(main, [], { env, execArgv: [], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (chunk) => (said = (said + chunk).slice(-4000)));
    const failed = once(child, 'exit').then(([code]) =>
      Promise.reject(new Error(`${app} ended with ${code}: ${said}`)),
    );
    failed.catch(() => {});
    const [message] = (await Promise.race([once(child, 'message'), failed])) as [unknown];
    if (message !== 'ready') throw new Error(`${app} said ${JSON.stringify(message)}`);
    return new AppProcess(child, performance.now() - from);
  }

  /** Its parent goes away: it ends by itself. Its exit code. */
  async leave(): Promise<number | null> {
    if (this.child.exitCode !== null) return this.child.exitCode;
    const gone = once(this.child, 'exit');
    this.child.disconnect();
    return ((await gone) as [number | null])[0];
  }

  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await gone;
  }
}
