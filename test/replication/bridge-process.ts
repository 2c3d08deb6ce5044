import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { freePort, projectRoot } from '@banyan/testing';
import type { Pair } from './pair.js';

/** The settings of a bridge whose log goes through that server. */
export const throughNats = ({ url }: { url: string }): Record<string, string> => ({
  NATS_URL: url,
  BANYAN_BRIDGE_LOG: 'jetstream',
  BANYAN_WAL_KEEP_MB: '256',
});

/** `apps/bridge` as the supervisor runs it: in a process of its own, started again when it ends by itself. */
export class BridgeProcess {
  #child: ChildProcess | undefined;
  #wanted = false;
  #port = 0;
  /** How often it ended by itself. */
  crashes = 0;

  constructor(
    private readonly pair: Pair,
    private readonly context: string,
    private readonly settings: Record<string, string> = {},
  ) {}

  /** Where probes and metrics answer. */
  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Resolves when it says that it is ready. `again`: is it started again when it ends by itself? */
  async start(again = true): Promise<void> {
    this.#wanted = again;
    this.#port ||= await freePort();
    const child = fork(join(projectRoot, 'apps/bridge/dist/main.js'), {
      execArgv: [], // Vitest's own would make it read the sources
      env: {
        PATH: process.env.PATH,
        INTERNAL_PORT: String(this.#port),
        BANYAN_STATE_DIR: join(projectRoot, '.banyan', 'test'),
        BANYAN_CONTEXT: this.context,
        BANYAN_DATABASE_URL_MONOLITH: this.pair.urls.monolith,
        BANYAN_DATABASE_URL_SERVICE: this.pair.urls.service,
        LOG_LEVEL: 'error',
        ...this.settings,
      },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    this.#child = child;
    child.once('exit', () => {
      if (!this.#wanted || this.#child !== child) return;
      this.crashes += 1;
      void this.start();
    });
    await Promise.race([once(child, 'message'), once(child, 'exit')]);
  }

  /** Starts it once, and resolves when it has ended by itself. */
  async runToItsEnd(): Promise<void> {
    await this.start(false);
    const child = this.#child!;
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }

  /** Resolves with its exit code, or the signal that ended it. */
  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<unknown> {
    this.#wanted = false;
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return undefined;
    const gone = once(child, 'exit');
    child.kill(signal);
    const [code, by] = (await gone) as [number | null, string | null];
    return by ?? code;
  }
}
