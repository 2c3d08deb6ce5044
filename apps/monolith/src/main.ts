import 'reflect-metadata';
import { readConfig } from '@banyan/platform/config';
import { shutDown } from '@banyan/platform/http';
import {
  gracefulShutdown,
  observeHttp,
  readiness,
  rootLogger,
  startInternalServer,
  startTelemetry,
} from '@banyan/platform/telemetry';
import { DemoShop } from './demo-shop.js';
import { createMonolith } from './monolith.js';

const config = readConfig();
const telemetry = await startTelemetry({ service: 'monolith', ...config.telemetry });
const shutdown = gracefulShutdown({ timeoutMs: config.http.shutdownMs });
shutdown.hook('telemetry', 'telemetry', () => telemetry.stop());
// The supervisor is gone: nobody would stop us any more.
if (process.send) process.on('disconnect', () => shutdown.now('the supervisor is gone'));

try {
  const internal = await startInternalServer({ port: config.http.internalPort, host: config.http.internalHost });
  shutdown.hook('state', 'internal server', () => internal.close());
  const app = await createMonolith(config, { observe: observeHttp, bufferLogs: true });
  shutdown.hook('traffic', 'app', () => shutDown(app, config.http.shutdownMs));
  if (config.seed) await app.get(DemoShop).seed();
  await app.listen(config.http.port, config.http.host);
  readiness.open();
  process.send?.('ready');
} catch (error) {
  rootLogger().fatal({ err: error }, 'The monolith could not start');
  await telemetry.stop();
  process.exit(1);
}
