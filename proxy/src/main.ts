import { readConfig } from '@banyan/platform/config';
import { gracefulShutdown, readiness, rootLogger, startTelemetry } from '@banyan/platform/telemetry';
import { startBanyanProxy } from './banyan.js';

const config = readConfig();
// Traces pass through: each request's traceparent goes on, and the proxy adds no span of its own.
const telemetry = await startTelemetry({ service: 'proxy', logLevel: config.telemetry.logLevel });
// A little longer than the drain, so that it is the drain that cuts off what is left.
const shutdown = gracefulShutdown({ timeoutMs: config.http.shutdownMs + 1_000 });
shutdown.hook('telemetry', 'telemetry', () => telemetry.stop());
// The supervisor is gone: nobody would stop us any more.
if (process.send) process.on('disconnect', () => void shutdown.now('the supervisor is gone'));

try {
  const proxy = await startBanyanProxy(config);
  shutdown.hook('traffic', 'proxy', () => proxy.close());
  readiness.open();
  process.send?.('ready');
} catch (error) {
  rootLogger().fatal({ err: error }, 'The proxy could not start');
  await telemetry.stop();
  process.exit(1);
}
