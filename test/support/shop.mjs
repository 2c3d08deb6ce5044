import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { EmbeddedPostgres } from '@banyan/platform/database';
import { freePort } from '@banyan/testing/servers';
import { Program, root } from './program.mjs';

const SECRETS = {
  PSP_WEBHOOK_SECRET: 'a webhook secret for one run',
  CARRIER_WEBHOOK_SECRET: 'another secret for one run',
  BANYAN_SECRET: 'a secret that seals the signing keys of one run',
};

/**
 * A Postgres of one tool's own: the embedded one on `.banyan/<name>`, which is gone afterwards. A folder of the
 * workspace, always the same, because Postgres' account has to be able to enter it, and because what a killed run left
 * behind is found and taken over.
 */
export async function startPostgres(name, settings = []) {
  const stateDir = join(root, '.banyan', name);
  mkdirSync(stateDir, { recursive: true });
  const server = await EmbeddedPostgres.start({ stateDir, port: await freePort(), settings });
  return {
    url: server.url,
    pid: server.pid,
    stateDir,
    /** A new, empty database; its URL. */
    async database(database) {
      await onServer(server.url, `drop database if exists ${database} with (force)`, `create database ${database}`);
      return Object.assign(new URL(server.localUrl), { pathname: `/${database}` }).href;
    },
    async stop({ keep = false } = {}) {
      await server.stop();
      if (!keep) rmSync(stateDir, { recursive: true, force: true });
    },
  };
}

async function onServer(connectionString, ...statements) {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

/** The shop as its users run it: the monolith and the payment provider's simulator, two processes on free ports. */
export async function shopOn({ databaseUrl, stateDir, settings = {}, execArgv = [] }) {
  const [port, internalPort, pspPort] = await Promise.all([freePort(), freePort(), freePort()]);
  rmSync(join(stateDir, 'shop'), { recursive: true, force: true });
  const shared = {
    ...SECRETS,
    BANYAN_STATE_DIR: join(stateDir, 'shop'),
    BANYAN_RATE_LIMITS: 'off',
    LOG_LEVEL: 'warn',
    NODE_COMPILE_CACHE: join(root, '.banyan', 'compile-cache'),
  };
  const url = `http://127.0.0.1:${port}`;
  const psp = new Program({
    main: 'apps/psp-simulator/dist/main.js',
    log: join(stateDir, 'psp-simulator.log'),
    env: { ...shared, PSP_PORT: String(pspPort), PSP_WEBHOOK_URL: `${url}/v1/webhooks/psp`, ...settings },
  });
  const app = new Program({
    main: 'apps/monolith/dist/main.js',
    log: join(stateDir, 'monolith.log'),
    execArgv,
    env: {
      ...shared,
      PORT: String(port),
      INTERNAL_PORT: String(internalPort),
      DATABASE_URL: databaseUrl,
      PSP_URL: `http://127.0.0.1:${pspPort}`,
      BANYAN_SEED: 'on',
      ...settings,
    },
  });
  return {
    url,
    app,
    psp,
    pspUrl: `http://127.0.0.1:${pspPort}`,
    internalUrl: `http://127.0.0.1:${internalPort}`,
    journal: join(stateDir, 'shop', 'psp', 'journal.jsonl'),
    async start() {
      await psp.start();
      return (await app.start()).ms;
    },
    async stop() {
      const code = await app.stop();
      await psp.stop();
      return code;
    },
  };
}

export const SHOP_ADDRESS = {
  name: 'Pat Buyer',
  line1: '1 Main Street',
  city: 'Berlin',
  postalCode: '10115',
  country: 'DE',
};
export const STAFF = { email: 'staff@example.com', password: 'banyan-demo' };
