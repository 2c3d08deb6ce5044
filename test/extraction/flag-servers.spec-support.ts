import { once } from 'node:events';
import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Module } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { loadConfig } from '@banyan/platform/config';
import { Database, migrate, roleUrl } from '@banyan/platform/database';
import { createHttpApp, shutDown } from '@banyan/platform/http';
import { migrationsDir } from '@banyan/testing';
import { startUnleash } from '@banyan/testing/servers';
import { ControlGuard, TOKENS } from '../../apps/control-plane/src/access.js';
import {
  type AuditEntry,
  FlagStore,
  FlagsModule,
  UnleashFlags,
  OwnFlags,
} from '../../apps/control-plane/src/flags/index.js';

export const CONTEXTS = ['inventory', 'orders'];
export const REFRESH_MS = 100;
/** For how long an answer is waited for: one that never comes is noticed within a test. */
export const ANSWER_MS = 3_000;

/** One of the two places where flags can be kept, running. */
export interface FlagServer {
  /** Base of its API. */
  api: string;
  clientToken: string;
  adminToken: string;
  /** The control plane's view of it, started; `api` is where it is to look for the flags, when it looks for them at all. */
  store(api: string): Promise<{ store: FlagStore; stop(): Promise<void> }>;
  audited: AuditEntry[];
  stop(): Promise<void>;
}

/** The database of schema `control`, in a test database. */
export async function controlDatabase(adminUrl: string): Promise<Database> {
  const folders = [join(migrationsDir, 'control')];
  await migrate({ adminUrl, context: 'control', side: 'monolith', folders });
  return new Database({ context: 'control', url: roleUrl(adminUrl, 'control'), max: 4 });
}

/** The control plane's own flags behind its own endpoint. */
export async function ownServer(adminUrl: string, stateDir: string): Promise<FlagServer> {
  const database = await controlDatabase(adminUrl);
  const [operator, client] = ['the-operator-of-this-test', 'the-routers-of-this-test'];
  const audited: AuditEntry[] = [];
  const audit = async (entry: AuditEntry) => void audited.push(entry);
  const config = loadConfig({
    BANYAN_STATE_DIR: stateDir,
    BANYAN_FLAGS_REFRESH_MS: String(REFRESH_MS),
    DATABASE_URL: adminUrl,
  });
  @Module({
    imports: [FlagsModule.with({ config, useFactory: () => ({ contexts: CONTEXTS, database, audit }) })],
    providers: [
      { provide: TOKENS, useValue: { operator, client } },
      { provide: APP_GUARD, useClass: ControlGuard },
    ],
  })
  class App {}
  const app = await createHttpApp(App, config, { logger: false });
  await app.listen(0, '127.0.0.1');
  return {
    api: `${(await app.getUrl()).replace('[::1]', '127.0.0.1')}/api/`,
    clientToken: client,
    adminToken: operator,
    audited,
    async store() {
      const store = new OwnFlags({ contexts: CONTEXTS, database, audit, refreshMs: REFRESH_MS, log: () => {} });
      await store.start();
      return { store, stop: () => store.stop() };
    },
    async stop() {
      await shutDown(app, 100);
      await database.close();
    },
  };
}

/** A real unleash-server, as npm has it, on a database of its own. */
export async function unleashServer(
  databaseUrl: string,
  adminUrl: string,
  stateDir: string,
): Promise<FlagServer & { startedInMs: number }> {
  const server = await startUnleash(databaseUrl);
  const { clientToken, adminToken, startedInMs } = server;
  const database = await controlDatabase(adminUrl);
  const api = `${server.url}/api/`;
  const audited: AuditEntry[] = [];
  return {
    api,
    clientToken,
    adminToken,
    audited,
    startedInMs,
    async store(seenAt) {
      const store = new UnleashFlags({
        contexts: CONTEXTS,
        database,
        audit: async (entry) => void audited.push(entry),
        server: {
          urls: [seenAt],
          apiToken: clientToken,
          appName: 'banyan-control-plane',
          refreshMs: REFRESH_MS,
          timeoutMs: ANSWER_MS,
          backupFile: join(stateDir, 'control-plane.json'),
        },
        adminToken,
        project: 'default',
        environment: 'development',
        log: () => {},
      });
      await store.start();
      return { store, stop: () => store.stop() };
    },
    async stop() {
      await server.stop();
      await database.close();
    },
  };
}

type Weather = 'fine' | 'down' | 'slow' | 'nonsense' | 'empty' | 'half';

/** Stands between a flag server and who asks it, and lets the answers through, or not. */
export class Gateway {
  weather: Weather = 'fine';
  api = '';
  #server: Server | undefined;

  constructor(private readonly behind: string) {}

  async start(): Promise<void> {
    this.#server = createServer((request, response) => {
      void (async () => {
        if (this.weather === 'down') return void response.socket?.destroy();
        if (this.weather === 'slow') return;
        if (this.weather === 'nonsense') return void response.end('<html>maintenance</html>');
        if (this.weather === 'empty') return void response.end('{"version":2,"features":[]}');
        const chunks: Buffer[] = [];
        for await (const chunk of request) chunks.push(chunk as Buffer);
        const {
          host: _,
          connection: __,
          'content-length': ___,
          'transfer-encoding': ____,
          ...headers
        } = request.headers;
        if (this.weather === 'half') delete headers['if-none-match'];
        const answer = await fetch(new URL((request.url as string).replace(/^\/api\//, ''), this.behind), {
          method: request.method,
          headers: headers as Record<string, string>,
          body: chunks.length > 0 ? Buffer.concat(chunks) : undefined,
        });
        let body = await answer.text();
        // As of a server of another kind: the flags are there, what they say is not.
        if (this.weather === 'half')
          body = body.replaceAll('"strategies":', '"rules":').replaceAll('"enabled":', '"on":');
        const etag = this.weather === 'half' ? null : answer.headers.get('etag');
        response.writeHead(answer.status, { 'content-type': 'application/json', ...(etag && { etag }) }).end(body);
      })().catch(() => response.destroy());
    }).listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.api = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/api/`;
  }

  stop(): void {
    this.#server?.closeAllConnections();
    this.#server?.close();
  }
}
