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
  /** Of a service or a bridge. */
  context?: string;
  /** From the second one on. */
  instance?: number;
  /** The file that Node runs. */
  main: string;
  /** The public port first. */
  ports: number[];
  env: Record<string, string>;
  log: string;
}

export interface ProcessListener {
  /** The process id, the ports or the readiness have changed. */
  changed(): void;
  /** What it said by IPC, other than that it is ready. */
  message?(message: unknown): void;
}

const READY_LIMIT_MS = 60_000;
const LOG_LIMIT_BYTES = 64 << 20;
/**
 * Waits before the second, third, … start in a row. One that was ready for STEADY_MS begins at the first again: it was
 * killed, or fell over what it was given, and is missed. One that cannot start is not.
 */
const BACK_OFF_MS = [100, 250, 500, 1_000, 2_000, 5_000, 10_000];
const STEADY_MS = 1_000;

/**
 * One child, kept alive. It runs in a process group of its own, so that Ctrl-C reaches the supervisor only, and has an
 * IPC channel, whose end tells it that the supervisor is gone.
 */
export class ManagedProcess {
  /** How often it has been started again. */
  restarts = 0;
  /** Why it does not run now, or not yet again. */
  error: string | undefined;
  private child: ChildProcess | undefined;
  private follower: LogFollower | undefined;
  private lastWords: string | undefined;
  private failures = 0;
  private readySince: number | undefined;
  private stopping = false;

  constructor(
    private current: ProcessSpec,
    private readonly screen: Screen,
    private readonly listener: ProcessListener,
    /** Called before it is started again: its ports may be somebody else's by then. */
    private readonly renew?: (spec: ProcessSpec) => Promise<ProcessSpec>,
  ) {}

  get spec(): ProcessSpec {
    return this.current;
  }

  get name(): string {
    const { role, context, instance } = this.current;
    return [role, context, instance].filter((part) => part !== undefined).join(' ');
  }

  get pid(): number | undefined {
    return this.child && !hasEnded(this.child) ? this.child.pid : undefined;
  }

  get ready(): boolean {
    return this.readySince !== undefined;
  }

  /**
   * Resolves when the process says that it is ready, with the IPC message `ready` or `{ ready: … }`. Not by asking it:
   * that took a third of a core while it started. Rejects when it ends before, or takes too long.
   */
  async start(): Promise<void> {
    const child = await this.launch();
    try {
      await this.untilReady(child);
    } catch (error) {
      await this.follower?.catchUp();
      throw error;
    }
    this.readySince = Date.now();
    this.error = undefined;
    this.listener.changed();
  }

  /** Starts it, again and again until it works, and keeps it alive. For one whose start nobody waits for. */
  async run(): Promise<void> {
    await this.start().then(
      () => this.keepAlive(),
      (error: Error) => this.startAgain(error.message),
    );
  }

  /** From now on an end that nobody asked for is followed by a new start. */
  keepAlive(): void {
    const { child } = this;
    if (!child) return;
    const again = () => void this.startAgain(`${this.name} ended by itself (${reasonOf(child)})`);
    if (hasEnded(child)) again();
    else child.once('exit', again);
  }

  send(message: object): void {
    if (this.child?.connected) this.child.send(message, () => {});
  }

  /** SIGTERM, and SIGKILL when that was not enough in time. */
  async stop(limitMs: number): Promise<void> {
    this.stopping = true;
    await this.end('SIGTERM', limitMs);
    await this.closeLog();
  }

  kill(): void {
    this.stopping = true;
    this.child?.kill('SIGKILL');
  }

  private async launch(): Promise<ChildProcess> {
    if (this.renew) this.current = await this.renew(this.current);
    const { main, env, log } = this.current;
    await mkdir(dirname(log), { recursive: true });
    if ((await sizeOf(log)) > LOG_LIMIT_BYTES) await rename(log, `${log}.1`);
    await this.closeLog();
    const file = await open(log, 'a');
    try {
      const { size } = await file.stat();
      this.lastWords = undefined;
      this.follower = await LogFollower.start(log, size, (line) => {
        if (line.level === 'error') this.lastWords = line.message;
        this.screen.tell({ event: 'log', process: this.name, ...line });
      });
      if (this.stopping) {
        await this.closeLog();
        throw new Error(`${this.name} is not started: everything stops`);
      }
      this.child = spawn(process.execPath, [main], {
        env: childEnvironment(env),
        stdio: ['ignore', file.fd, file.fd, 'ipc'],
        detached: true,
        windowsHide: true,
      });
    } finally {
      await file.close();
    }
    this.child.on('error', () => {}); // a failed send or kill: its end is what counts
    this.child.on('message', (message: unknown) => {
      if (!saysReady(message)) this.listener.message?.(message);
    });
    this.listener.changed();
    return this.child;
  }

  private async untilReady(child: ChildProcess): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    try {
      await new Promise<void>((ready, failed) => {
        child.on('message', (message: unknown) => saysReady(message) && ready());
        child.once('exit', () => failed(new Error(`${this.name} ended (${reasonOf(child)})`)));
        child.once('error', failed);
        const late = () => failed(new Error(`${this.name} was not ready after ${READY_LIMIT_MS / 1000} s`));
        timer = setTimeout(late, READY_LIMIT_MS);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  private async startAgain(why: string): Promise<void> {
    for (;;) {
      await this.end('SIGKILL', 0); // one that took too long
      if (this.readySince !== undefined && Date.now() - this.readySince > STEADY_MS) this.failures = 0;
      this.readySince = undefined;
      if (this.stopping) return this.listener.changed();
      await this.follower?.catchUp();
      const waitMs = BACK_OFF_MS[Math.min(this.failures, BACK_OFF_MS.length - 1)] as number;
      this.failures += 1;
      this.error = this.lastWords ? `${why}: ${this.lastWords}` : why;
      const log = this.current.log;
      this.screen.tell({ event: 'notice', message: `${why}; it starts again in ${waitMs} ms. Log: ${log}` });
      this.listener.changed();
      await sleep(waitMs);
      if (this.stopping) return;
      this.restarts += 1;
      try {
        await this.start();
        this.screen.tell({ event: 'notice', message: `${this.name} is back.` });
        return this.keepAlive();
      } catch (error) {
        why = (error as Error).message;
      }
    }
  }

  private async closeLog(): Promise<void> {
    const { follower } = this;
    this.follower = undefined;
    await follower?.stop();
  }

  private async end(signal: NodeJS.Signals, limitMs: number): Promise<void> {
    const { child } = this;
    if (!child || hasEnded(child) || child.pid === undefined) return;
    const gone = new Promise<void>((done) => child.once('exit', () => done()));
    child.kill(signal);
    const killer = setTimeout(() => child.kill('SIGKILL'), limitMs);
    await gone;
    clearTimeout(killer);
  }
}

const saysReady = (message: unknown): boolean =>
  message === 'ready' || (typeof message === 'object' && message !== null && 'ready' in message);

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;
const reasonOf = ({ signalCode, exitCode }: ChildProcess): string => signalCode ?? `exit code ${exitCode}`;

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}
