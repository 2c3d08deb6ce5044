import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { engine } from './engines.js';
import { eventually } from './eventually.js';

export interface NatsServer {
  /** Stays the same through restarts. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** `kill -9`, then a new process on the same port; streams come back from disk, unless `emptied`. */
  restart(how?: { emptied?: boolean }): Promise<void>;
  /** `kill -9`, and nobody listens until `restart`. */
  kill(): Promise<void>;
  /** Stops answering without closing a connection, as a machine does that hangs; returns what lets it go on. */
  pause(): () => void;
  /** Ends it and removes what it kept. */
  stop(): Promise<void>;
}

/**
 * A real NATS server with JetStream, on a free port and a folder of its own. `config` is added to its configuration
 * (users, TLS, limits), in nats-server's own language.
 */
export async function startNats({ config = '' }: { config?: string } = {}): Promise<NatsServer> {
  const binary = await engine('nats-server');
  const folder = await mkdtemp(join(tmpdir(), 'banyan-nats-'));
  const file = join(folder, 'nats.conf');
  const store = join(folder, 'store');
  // -1: a port that the system chooses; from then on it is that one.
  let port = -1;

  const start = async () => {
    await writeFile(
      file,
      `listen: "127.0.0.1:${port}"\nports_file_dir: "${folder}"\njetstream { store_dir: "${store}" }\n${config}\n`,
    );
    let said = '';
    const started = spawn(binary, ['-c', file], { stdio: ['ignore', 'ignore', 'pipe'] });
    started.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4_000)));
    const ended = once(started, 'exit').then(() => Promise.reject(new Error(`nats-server ended:\n${said}`)));
    ended.catch(() => {});
    try {
      await Promise.race([ended, listening(started)]);
    } catch (error) {
      started.kill('SIGKILL');
      throw error;
    }
    return started;
  };
  const listening = ({ pid }: ChildProcess) =>
    eventually(
      async () => {
        const told = await readFile(join(folder, `nats-server_${pid}.ports`), 'utf8');
        port = Number(new URL((JSON.parse(told) as { nats: string[] }).nats[0]!).port);
        await greeted(port);
        return true;
      },
      // It reads its streams first.
      { timeoutMs: 30_000 },
    );
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    if (signal !== 'SIGKILL') child.kill('SIGCONT');
    await gone;
  };

  let child = await start();
  // A test run that ends in the middle leaves no server behind.
  const orphaned = () => child.kill('SIGKILL');
  process.once('exit', orphaned);
  return {
    url: `nats://127.0.0.1:${port}`,
    port,
    get pid() {
      return child.pid!;
    },
    kill: () => end('SIGKILL'),
    async restart({ emptied = false } = {}) {
      await end('SIGKILL');
      if (emptied) await rm(store, { recursive: true, force: true });
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

/** A server that takes clients says so first: `INFO {…}`. */
function greeted(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    const give = (up: () => void) => {
      socket.destroy();
      up();
    };
    socket.once('data', () => give(resolve));
    socket.once('error', reject).once('close', () => reject(new Error('closed')));
  });
}
