import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, open, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { childEnvironment } from './child-environment.js';
import { LogFollower } from './log-follower.js';
import type { Role } from './runtime-file.js';
import type { Screen } from './screen.js';

export interface ProcessSpec {
  role: Role;
  /** The file that Node runs. */
  main: string;
  /** The public port first. */
  ports: number[];
  env: Record<string, string>;
  log: string;
}

const READY_LIMIT_MS = 60_000;
const LOG_LIMIT_BYTES = 64 << 20;
/** Waits before the second, third, … start in a row; a process that then ran for STEADY_MS starts again at the first. */
const BACK_OFF_MS = [250, 500, 1_000, 2_000, 5_000, 10_000];
const STEADY_MS = 30_000;

/**
 * One child, kept alive. It runs in a process group of its own, so that Ctrl-C reaches the supervisor only, and has an
 * IPC channel, whose end tells it that the supervisor is gone.
 */
export class ManagedProcess {
  private child: ChildProcess | undefined;
  private follower: LogFollower | undefined;
  private failures = 0;
  private stopping = false;
  private startedAt = 0;

  constructor(
    readonly spec: ProcessSpec,
    private readonly screen: Screen,
    /** Called whenever the process id has changed. */
    private readonly changed: () => void,
  ) {}

  get pid(): number | undefined {
    return this.child?.exitCode === null && this.child.signalCode === null ? this.child.pid : undefined;
  }

  /**
   * Resolves when the process says that it is ready, with the IPC message `ready` or `{ ready: … }`. Not by asking it:
   * that took a third of a core while it started. Rejects when it ends before, or takes too long.
   */
  async start(): Promise<void> {
    const child = await this.launch();
    const { role } = this.spec;
    let timer: NodeJS.Timeout | undefined;
    try {
      await new Promise<void>((ready, failed) => {
        child.on('message', (message: unknown) => {
          if (message === 'ready' || (typeof message === 'object' && message && 'ready' in message)) ready();
        });
        child.once('exit', (code, signal) => failed(new Error(`${role} ended (${signal ?? `exit code ${code}`})`)));
        child.once('error', failed);
        timer = setTimeout(
          () => failed(new Error(`${role} was not ready after ${READY_LIMIT_MS / 1000} s`)),
          READY_LIMIT_MS,
        );
      });
    } catch (error) {
      await this.follower?.catchUp();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** From now on an end that nobody asked for is followed by a new start. */
  keepAlive(): void {
    const child = this.child;
    if (!child) return;
    if (child.exitCode !== null || child.signalCode !== null) void this.restart(child);
    else child.once('exit', () => void this.restart(child));
  }

  /** SIGTERM, and SIGKILL when that was not enough in time. */
  async stop(limitMs: number): Promise<void> {
    this.stopping = true;
    const { child } = this;
    if (child && this.pid !== undefined) {
      const gone = new Promise<void>((done) => child.once('exit', () => done()));
      child.kill('SIGTERM');
      const killer = setTimeout(() => child.kill('SIGKILL'), limitMs);
      await gone;
      clearTimeout(killer);
    }
    await this.follower?.stop();
    this.follower = undefined;
  }

  kill(): void {
    this.stopping = true;
    this.child?.kill('SIGKILL');
  }

  private async launch(): Promise<ChildProcess> {
    const { role, main, env, log } = this.spec;
    await mkdir(dirname(log), { recursive: true });
    if ((await sizeOf(log)) > LOG_LIMIT_BYTES) await rename(log, `${log}.1`);
    await this.follower?.stop();
    const file = await open(log, 'a');
    const { size } = await file.stat();
    if (this.stopping) throw new Error(`${role} is not started: everything stops`);
    this.child = spawn(process.execPath, [main], {
      env: childEnvironment(env),
      stdio: ['ignore', file.fd, file.fd, 'ipc'],
      detached: true,
      windowsHide: true,
    });
    this.child.on('error', () => {}); // a failed send or kill: its end is what counts
    this.startedAt = Date.now();
    await file.close();
    this.follower = await LogFollower.start(log, size, (line) =>
      this.screen.tell({ event: 'log', process: role, ...line }),
    );
    this.changed();
    return this.child;
  }

  private async restart(ended: ChildProcess): Promise<void> {
    while (!this.stopping) {
      if (Date.now() - this.startedAt > STEADY_MS) this.failures = 0;
      const waitMs = BACK_OFF_MS[Math.min(this.failures, BACK_OFF_MS.length - 1)] as number;
      this.failures += 1;
      const why = ended.signalCode ?? `exit code ${ended.exitCode}`;
      this.screen.tell({
        event: 'notice',
        message: `${this.spec.role} ended by itself (${why}); it starts again in ${waitMs} ms. Log: ${this.spec.log}`,
      });
      this.changed();
      await sleep(waitMs);
      if (this.stopping) return;
      try {
        await this.start();
        this.screen.tell({ event: 'notice', message: `${this.spec.role} is back.` });
        this.keepAlive();
        return;
      } catch {
        ended = this.child as ChildProcess;
        if (this.pid !== undefined) {
          this.child?.kill('SIGKILL');
          await new Promise((done) => ended.once('exit', done));
        }
      }
    }
  }
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}
