import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { type Config, readConfig } from '@banyan/platform/config';
import { shutDown } from '@banyan/platform/http';
import { armFailPoints, failPoint } from '@banyan/platform/fail-point';
import {
  gracefulShutdown,
  observeHttp,
  readiness,
  rootLogger,
  startInternalServer,
  startTelemetry,
} from '@banyan/platform/telemetry';
import { type HostOptions, createHost } from './host.js';

export interface ProcessOptions extends Omit<HostOptions, 'observe' | 'bufferLogs' | 'logger'> {
  /** As logs and traces call the process: `inventory-service`. */
  name: string;
  /** Done when the app is up and nobody can reach it yet. */
  beforeListening?: (app: NestFastifyApplication, config: Config) => Promise<void>;
}

/**
 * The whole `main.ts` of a process that hosts contexts: settings, telemetry, probes, app, ready, and the way down. A parent
 * that is connected by IPC is told 'ready'; when it goes away the process ends as well, because nobody would stop it.
 */
export async function runProcess({ name, beforeListening, ...options }: ProcessOptions): Promise<void> {
  const config = readConfig();
  armFailPoints(config.extraction.failPoints);
  const telemetry = await startTelemetry({ service: name, ...config.telemetry });
  const shutdown = gracefulShutdown({ timeoutMs: config.http.shutdownMs });
  shutdown.hook('telemetry', 'telemetry', () => telemetry.stop());
  if (process.send) process.on('disconnect', () => shutdown.now('the supervisor is gone'));
  try {
    const internal = await startInternalServer({ port: config.http.internalPort, host: config.http.internalHost });
    shutdown.hook('state', 'internal server', () => internal.close());
    const app = await createHost(config, { ...options, observe: observeHttp, bufferLogs: true });
    shutdown.hook('traffic', 'app', () => shutDown(app, config.http.shutdownMs));
    await beforeListening?.(app, config);
    await app.listen(config.http.port, config.http.host);
    failPoint(`${options.side}-before-ready`);
    readiness.open();
    process.send?.('ready');
  } catch (error) {
    rootLogger().fatal({ err: error }, `${name} could not start`);
    await telemetry.stop();
    process.exit(1);
  }
}
