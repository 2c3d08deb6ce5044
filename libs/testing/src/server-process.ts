import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.js';

/** A real server, as tests use it: it keeps its address through restarts. What is asked of it happens in that order. */
export interface ServerProcess {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** `kill -9`, then a new process at the same address; what it kept comes back from disk, unless `emptied`. */
  restart(how?: { emptied?: boolean }): Promise<void>;
  /** `kill -9`, and nobody listens until `restart`. */
  kill(): Promise<void>;
  /** Stops answering without closing a connection, as a machine does that hangs; returns what lets it go on. */
  pause(): () => void;
  /** Ends it and removes what it kept. */
  stop(): Promise<void>;
}

export interface ServerCommand {
  command: string;
  args: string[];
  env?: NodeJS.ProcessEnv;
  url: string;
  port: number;
  /** Where it keeps what comes back after a restart. */
  data?: string;
  /** What is removed at its end. */
  folder?: string;
  /** Rejects, or resolves with false, as long as it takes no clients. */
  ready(): Promise<boolean>;
  /** How long it may take until then, ms. */
  readyMs?: number;
  /** Default SIGTERM. */
  endWith?: NodeJS.Signals;
}

/** Where a run of specs notes the servers that live: who has ended in the middle has left some. */
const NOTED_IN = 'BANYAN_TEST_SERVERS';

/** Starts it, and resolves when it takes clients. */
export async function startServer(how: ServerCommand): Promise<ServerProcess> {
  let child: ChildProcess;
  const startedBy = (new Error().stack ?? '').replace(/^Error:? *\n/, '');
  const start = async () => {
    child = spawn(how.command, how.args, { env: how.env ?? process.env, stdio: ['ignore', 'pipe', 'pipe'] });
    child.on('error', () => {}); // seen as its end below
    const forget = note(child, startedBy);
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream!.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4_000)));
    const ended = once(child, 'exit').then(() => {
      forget();
      throw new Error(`${how.command} ended:\n${said}`);
    });
    ended.catch(() => {});
    try {
      await Promise.race([ended, eventually(how.ready, { timeoutMs: how.readyMs ?? 30_000 })]);
    } catch (error) {
      await end('SIGKILL');
      throw error;
    }
  };
  const end = async (signal: NodeJS.Signals) => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    if (signal !== 'SIGKILL') child.kill('SIGCONT');
    await gone;
  };
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = last.then(work);
    last = turn.catch(() => {});
    return turn;
  };
  const remove = (path: string | undefined) => path && rm(path, { recursive: true, force: true });

  // A program that ends in the middle leaves no server behind; what is killed cannot help it.
  const orphaned = () => child.kill('SIGKILL');
  process.once('exit', orphaned);
  const stop = () =>
    inTurn(async () => {
      process.off('exit', orphaned);
      await end(how.endWith ?? 'SIGTERM');
      await remove(how.folder);
    });
  try {
    await inTurn(start);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: how.url,
    port: how.port,
    get pid() {
      return child.pid!;
    },
    kill: () => inTurn(() => end('SIGKILL')),
    restart: ({ emptied = false } = {}) =>
      inTurn(async () => {
        await end('SIGKILL');
        if (emptied) await remove(how.data);
        await start();
      }),
    pause() {
      const { pid } = child;
      child.kill('SIGSTOP');
      return () => void (child.pid === pid && child.kill('SIGCONT'));
    },
    stop,
  };
}

function note({ pid }: ChildProcess, startedBy: string): () => void {
  const folder = process.env[NOTED_IN];
  if (!folder || pid === undefined) return () => {};
  const file = join(folder, String(pid));
  // At once: whoever started it may be killed at any time.
  writeFileSync(file, startedBy);
  return () => rmSync(file, { force: true });
}

/** From now on servers are noted, in this process and in those that it starts. Resolves with what ends those that are left, and throws when there are some. */
export async function watchServers(): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'banyan-servers-'));
  process.env[NOTED_IN] = folder;
  return async () => {
    const left: string[] = [];
    for (const pid of await readdir(folder)) {
      const startedBy = await readFile(join(folder, pid), 'utf8');
      if (killed(Number(pid))) left.push(`process ${pid}, started\n${startedBy}`);
    }
    await rm(folder, { recursive: true, force: true });
    if (left.length) throw new Error(`Servers were left running, and are killed now:\n${left.join('\n')}`);
  };
}

function killed(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL');
  } catch {
    return false;
  }
}
