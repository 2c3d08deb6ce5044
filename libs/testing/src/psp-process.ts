import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './free-port.js';
import { projectRoot } from './settings.js';

export interface PspStats {
  authorisations: number;
  totals: Record<string, { authorised: number; captured: number; voided: number; refunded: number }>;
  /** References that were charged more than once. */
  duplicates: string[];
}

export interface PspProcess {
  readonly url: string;
  stats(): Promise<PspStats>;
  /** `kill -9`, then a new process on the same port and journal. */
  restart(): Promise<void>;
  /** `kill -9`, and nobody listens until `restart`. */
  kill(): Promise<void>;
  /** Ends it and removes its journal. */
  stop(): Promise<void>;
}

/** The real payment provider simulator, as a process of its own. It runs what was built last (`npm run build`). */
export async function startPsp(settings: Record<string, string> = {}): Promise<PspProcess> {
  const main = join(projectRoot, 'apps', 'psp-simulator', 'dist', 'main.js');
  if (!existsSync(main)) throw new Error(`${main} is missing: run npm run build first`);
  const stateDir = await mkdtemp(join(tmpdir(), 'banyan-psp-'));
  const port = await freePort();

  const start = async () => {
    const env = { PATH: '', BANYAN_STATE_DIR: stateDir, ...settings, PSP_PORT: String(port) };
    // Vitest's own flags (conditions) would make it look for sources.
    const child = fork(main, [], { env, execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    // The only word it says: it is ready.
    await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(([code]) => Promise.reject(new Error(`The simulator ended with ${code}`))),
    ]);
    return child;
  };
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  };

  let child = await start();
  return {
    url: `http://127.0.0.1:${port}`,
    stats: async () => (await (await fetch(`http://127.0.0.1:${port}/stats`)).json()) as PspStats,
    kill: () => end('SIGKILL'),
    async restart() {
      await end('SIGKILL');
      child = await start();
    },
    async stop() {
      await end('SIGTERM');
      await rm(stateDir, { recursive: true });
    },
  };
}
