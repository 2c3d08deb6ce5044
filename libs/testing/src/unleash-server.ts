import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { freePort } from './free-port.js';
import { type ServerProcess, startServer } from './server-process.js';

/** Migrations on a first start, on a busy machine. */
const START_LIMIT_MS = 120_000;

export interface UnleashServer extends ServerProcess {
  /** For who reads flags, and for who sets them. */
  readonly clientToken: string;
  readonly adminToken: string;
  readonly startedInMs: number;
}

/** A real unleash-server, as npm has it, on a free port and a database of its own, which may be empty. */
export async function startUnleash(databaseUrl: string): Promise<UnleashServer> {
  const began = performance.now();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const adminToken = '*:*.the-operator-of-this-test';
  const clientToken = 'default:development.the-routers-of-this-test';
  const server = await startServer({
    ...{ command: process.execPath, args: [unleashMain()], url, port },
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
    async ready() {
      const health = await fetch(`${url}/health`);
      await health.text();
      return health.ok;
    },
    readyMs: START_LIMIT_MS,
    // It takes its time to end, and keeps nothing that could break.
    endWith: 'SIGKILL',
  });
  const startedInMs = Math.round(performance.now() - began);
  return Object.assign(server, { clientToken, adminToken, startedInMs });
}

/** Where unleash-server's main is: its exports name the library only. */
const unleashMain = (): string =>
  join(dirname(createRequire(import.meta.url).resolve('unleash-server')), '..', 'server.js');
