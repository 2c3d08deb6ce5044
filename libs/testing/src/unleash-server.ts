import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from './free-port.js';

/** Migrations on a first start, on a busy machine. */
const START_LIMIT_MS = 120_000;

/** A real unleash-server, as npm has it, as a process of its own. */
export interface UnleashServer {
  readonly url: string;
  /** For who reads flags, and for who sets them. */
  readonly clientToken: string;
  readonly adminToken: string;
  readonly startedInMs: number;
  /** `kill -9`, and nobody listens until `restart`. */
  kill(): Promise<void>;
  /** `kill -9`, then a new process on the same port and database. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts one on a free port and a database of its own, which may be empty. Resolves when it answers. */
export async function startUnleash(databaseUrl: string): Promise<UnleashServer> {
  const began = performance.now();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const adminToken = '*:*.the-operator-of-this-test';
  const clientToken = 'default:development.the-routers-of-this-test';

  const start = async () => {
    const child = spawn(process.execPath, [unleashMain()], {
      env: {
        PATH: '',
        TZ: 'UTC',
        DATABASE_URL: databaseUrl,
        DATABASE_SSL: 'false',
        HTTP_HOST: '127.0.0.1',
        HTTP_PORT: String(port),
        LOG_LEVEL: 'error',
        CHECK_VERSION: 'false',
        SEND_TELEMETRY: 'false',
        NODE_NO_WARNINGS: '1',
        INIT_ADMIN_API_TOKENS: adminToken,
        INIT_BACKEND_API_TOKENS: clientToken,
        // Flags of its version 5 may have variants of their own still; new ones only with this.
        UNLEASH_EXPERIMENTAL_ENABLE_LEGACY_VARIANTS: 'true',
      },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    child.on('error', () => {}); // seen as its end below
    for (const deadline = performance.now() + START_LIMIT_MS; ; await sleep(100)) {
      if (hasEnded(child)) throw new Error(`unleash-server ended with ${child.signalCode ?? child.exitCode}`);
      const health = await fetch(`${url}/health`).catch(() => undefined);
      await health?.text();
      if (health?.ok) return child;
      if (performance.now() < deadline) continue;
      await end(child);
      throw new Error(`unleash-server did not answer within ${START_LIMIT_MS / 1_000} s`);
    }
  };

  let child = await start();
  const kill = () => end(child);
  // A test run that ends in the middle leaves no server behind.
  const orphaned = () => child.kill('SIGKILL');
  process.once('exit', orphaned);
  return {
    url,
    clientToken,
    adminToken,
    startedInMs: Math.round(performance.now() - began),
    kill,
    async restart() {
      await kill();
      child = await start();
    },
    async stop() {
      process.off('exit', orphaned);
      await kill();
    },
  };
}

/** Where unleash-server's main is: its exports name the library only. */
const unleashMain = (): string =>
  join(dirname(createRequire(import.meta.url).resolve('unleash-server')), '..', 'server.js');

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;

async function end(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}
