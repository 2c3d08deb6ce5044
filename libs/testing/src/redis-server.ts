import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { engine } from './engines.js';
import { eventually } from './eventually.js';
import { freePort } from './free-port.js';

export interface RedisServer {
  /** Stays the same through restarts. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** `kill -9`, then a new process on the same port; data comes back from disk, unless `emptied`. */
  restart(how?: { emptied?: boolean }): Promise<void>;
  /** `kill -9`, and nobody listens until `restart`. */
  kill(): Promise<void>;
  /** Stops answering without closing a connection, as a machine does that hangs; returns what lets it go on. */
  pause(): () => void;
  /** Ends it and removes what it kept. */
  stop(): Promise<void>;
}

/**
 * A real Redis server that keeps an append-only file, on a free port and a folder of its own. `config` is added to its
 * configuration (`requirepass`, `user …`, `maxmemory`), in Redis's own language.
 */
export async function startRedis({ config = '' }: { config?: string } = {}): Promise<RedisServer> {
  const binary = await engine('redis-server');
  const folder = await mkdtemp(join(tmpdir(), 'banyan-redis-'));
  const file = join(folder, 'redis.conf');
  const data = join(folder, 'data');
  // Redis takes 0 for "none": the system is asked for a port first.
  const port = await freePort();

  const start = async () => {
    await mkdir(data, { recursive: true });
    await writeFile(file, `bind 127.0.0.1\nport ${port}\ndir "${data}"\nappendonly yes\nsave ""\n${config}\n`);
    let said = '';
    const started = spawn(binary, [file], { stdio: ['ignore', 'pipe', 'ignore'] });
    started.stdout.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4_000)));
    const ended = once(started, 'exit').then(() => Promise.reject(new Error(`redis-server ended:\n${said}`)));
    ended.catch(() => {});
    try {
      // It reads its file first, and says LOADING meanwhile.
      await Promise.race([ended, eventually(() => answering(port), { timeoutMs: 30_000 })]);
    } catch (error) {
      started.kill('SIGKILL');
      throw error;
    }
    return started;
  };
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    if (signal !== 'SIGKILL') child.kill('SIGCONT');
    await gone;
  };

  let child: ChildProcess = await start();
  // A test run that ends in the middle leaves no server behind.
  const orphaned = () => child.kill('SIGKILL');
  process.once('exit', orphaned);
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    get pid() {
      return child.pid!;
    },
    kill: () => end('SIGKILL'),
    async restart({ emptied = false } = {}) {
      await end('SIGKILL');
      if (emptied) await rm(data, { recursive: true, force: true });
      child = await start();
    },
    pause() {
      child.kill('SIGSTOP');
      return () => void child.kill('SIGCONT');
    },
    async stop() {
      process.off('exit', orphaned);
      await end('SIGTERM');
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A server that is there says something to a PING, be it that a password is wanted; one that still loads does not count. */
function answering(port: number): Promise<true> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    const refuse = (error: Error) => {
      socket.destroy();
      reject(error);
    };
    socket.once('data', (said) => {
      if (said.toString().startsWith('-LOADING')) return refuse(new Error('loading'));
      socket.destroy();
      resolve(true);
    });
    socket.once('error', refuse).once('close', () => reject(new Error('closed')));
  });
}
