import { join } from 'node:path';
import { Logger } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { contracts } from '@banyan/contracts';
import { Nats, natsUser } from '@banyan/messaging/nats';
import { type Config, keptSecret } from '@banyan/platform/config';
import { migrate, roleUrl } from '@banyan/platform/database';
import { type HttpAppOptions, createHttpApp } from '@banyan/platform/http';
import { NestLogger } from '@banyan/platform/telemetry/nest';
import { ControlPlaneModule } from './app.module.js';
import { ChildProcesses } from './child-processes.js';
import { ControlPlane } from './control-plane.service.js';
import { EventStream } from './event-stream.js';
import { forwardWhileStandingBy } from './forward.js';
import { KubernetesRuntime } from './kubernetes-runtime.js';
import type { OwnerDatabases } from './owner-databases.js';
import { ReplicationStreams } from './replication-streams.js';
import type { Runtime } from './runtime.js';
import type { Streams } from './streams.js';

const migrationsDir = join(import.meta.dirname, '../../../migrations');
/** How long the start waits to become the one that acts, ms; a killed predecessor's lock goes at once. */
const PATIENCE_MS = 3_000;

export type { ProcessState, Wanted } from './runtime.js';
export { Runtime } from './runtime.js';

export interface CreateOptions extends Pick<HttpAppOptions, 'logger' | 'bufferLogs' | 'observe'> {
  /** Where services and bridges run; the one that the settings ask for by default. */
  runtime?: Runtime;
  streams?: (owners: OwnerDatabases) => Streams;
}

/** The control plane on the database of `config`: migrated, acting or standing by, not listening yet. */
export async function createControlPlane(config: Config, options: CreateOptions = {}): Promise<NestFastifyApplication> {
  const adminUrl = config.database.url;
  if (!adminUrl)
    throw new Error('The control plane needs DATABASE_URL; `banyan up` brings an embedded Postgres and sets it');
  const { runtime = runtimeOf(config), streams = (owners) => new ReplicationStreams(owners), ...http } = options;
  const nats =
    config.nats && config.transports.rpc === 'nats'
      ? await Nats.connect(config.nats, { name: natsUser.controlPlane })
      : undefined;
  await migrate({ adminUrl, context: 'control', side: 'monolith', folders: [join(migrationsDir, 'control')] });
  const { stateDir, extraction } = config;
  const app = await createHttpApp(
    ControlPlaneModule.with({
      config,
      url: roleUrl(adminUrl, 'control'),
      tokens: {
        operator: extraction.operatorToken ?? keptSecret(stateDir, 'operator-token'),
        client: extraction.clientToken ?? keptSecret(stateDir, 'client-token'),
      },
      monolith: extraction.monolith,
      runtime,
      streams,
      nats,
    }),
    config,
    { title: 'Banyan control plane', ...http },
  );
  if (options.bufferLogs) app.useLogger(app.get(NestLogger));
  // Streams never end by themselves, and would keep the server from closing.
  app
    .getHttpAdapter()
    .getInstance()
    .addHook('preClose', (done: () => void) => {
      EventStream.endAll();
      done();
    });
  forwardWhileStandingBy(app.getHttpAdapter().getInstance(), app.get(ControlPlane), extraction.controlUrls ?? []);
  await app.init();
  await app.get(ControlPlane).start(PATIENCE_MS);
  return app;
}

const runtimeOf = (config: Config): Runtime =>
  config.extraction.runtime === 'kubernetes'
    ? new KubernetesRuntime({
        namespace: config.extraction.namespace,
        contexts: contracts.map(({ name }) => name),
        log: (msg) => new Logger('Kubernetes').warn({ msg }),
      })
    : new ChildProcesses();
