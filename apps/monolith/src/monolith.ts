import { join } from 'node:path';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { contracts } from '@banyan/contracts';
import { type Placement, currentScope, newScope, runInScope } from '@banyan/messaging';
import type { Config } from '@banyan/platform/config';
import { ensureContextDatabases, ensureOwnedSchema } from '@banyan/platform/database';
import { type HttpAppOptions, createHttpApp } from '@banyan/platform/http';
import { NestLogger } from '@banyan/platform/telemetry';
import { AppModule } from './app.module.js';

const migrationsDir = join(import.meta.dirname, '../../../migrations');

/** The monolith on the database of `config`, migrated and initialised, not listening yet. */
export async function createMonolith(
  config: Config,
  options: Pick<HttpAppOptions, 'logger' | 'bufferLogs' | 'observe'> & { placement?: Placement } = {},
): Promise<NestFastifyApplication> {
  const adminUrl = config.database.url;
  if (!adminUrl)
    throw new Error('The monolith needs DATABASE_URL; `banyan up` brings an embedded Postgres and sets it');
  const urls = await ensureContextDatabases({
    adminUrl,
    contexts: contracts.map(({ name }) => name),
    side: 'monolith',
    migrationsDir,
    overrides: config.database.contextUrls,
  });
  const jobsUrl = await ensureOwnedSchema(adminUrl, 'jobs');
  const { placement, ...http } = options;
  const app = await createHttpApp(AppModule.with({ config, urls, jobsUrl, placement }), config, {
    title: 'Banyan shop',
    ...http,
    // Every handler runs in a scope: calls act for the request's actor, and end when nobody waits any more.
    requestScope: (_request, actor, next) =>
      runInScope(newScope(actor, Date.now() + config.http.requestTimeoutMs), next),
    answerFacts: () => {
      const seen = currentScope()?.seen;
      const consistency = Object.entries(seen?.consistency ?? {}).map(([context, lsn]) => `${context}=${lsn}`);
      return { replayed: seen?.replayed, consistency: consistency.join(',') || undefined };
    },
  });
  // Before init: what buffers log lines gives them to Nest's console logger there.
  if (options.bufferLogs) app.useLogger(app.get(NestLogger));
  await app.init();
  return app;
}
