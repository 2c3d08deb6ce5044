import 'reflect-metadata';
import { readConfig } from '@banyan/platform/config';
import { shutDown } from '@banyan/platform/http';
import { armFailPoints } from '@banyan/platform/fail-point';
import {
  gracefulShutdown,
  observeHttp,
  readiness,
  rootLogger,
  startInternalServer,
  startTelemetry,
} from '@banyan/platform/telemetry';
import { createControlPlane } from './control-plane.js';

const config = readConfig();
armFailPoints(config.extraction.failPoints);
const telemetry = await startTelemetry({ service: 'control-plane', ...config.telemetry });
const shutdown = gracefulShutdown({ timeoutMs: config.http.shutdownMs });
shutdown.hook('telemetry', 'telemetry', () => telemetry.stop());
// The supervisor is gone: nobody would stop us any more.
if (process.send) process.on('disconnect', () => shutdown.now('the supervisor is gone'));

try {
  const internal = await startInternalServer({ port: config.http.internalPort, host: config.http.internalHost });
  shutdown.hook('state', 'internal server', () => internal.close());
  const app = await createControlPlane(config, { observe: observeHttp, bufferLogs: true });
  shutdown.hook('traffic', 'app', () => shutDown(app, config.http.shutdownMs));
  await app.listen(config.extraction.controlPort, config.extraction.controlHost);
  readiness.open();
  process.send?.('ready');
} catch (error) {
  rootLogger().fatal({ err: error }, 'The control plane could not start');
  await telemetry.stop();
  process.exit(1);
}
