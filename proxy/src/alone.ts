import { readConfig } from '@banyan/platform/config';
import { gracefulShutdown, rootLogger, startTelemetry } from '@banyan/platform/telemetry';
import { BadFile } from './config-file.js';
import { startStandalone } from './standalone.js';

/* What `banyan proxy --config FILE` runs: the file is the first argument. A parent learns by IPC how it went. */
const config = readConfig();
const telemetry = await startTelemetry({ service: 'proxy', logLevel: config.telemetry.logLevel });

try {
  const proxy = await startStandalone(process.argv[2] ?? 'proxy.yaml', config);
  const shutdown = gracefulShutdown({ timeoutMs: proxy.drainMs + 1_000 });
  shutdown.hook('traffic', 'proxy', () => proxy.close());
  shutdown.hook('telemetry', 'telemetry', () => telemetry.stop());
  if (process.send) process.on('disconnect', () => void shutdown.now('the parent is gone'));
  process.send?.({ ready: { port: proxy.port, adminPort: proxy.adminPort } });
} catch (error) {
  const { code } = error as NodeJS.ErrnoException;
  const failed = error instanceof BadFile ? 'BAD_FILE' : code === 'EADDRINUSE' ? 'PORT_IN_USE' : 'FAILED';
  const { message } = error as Error;
  if (failed === 'FAILED') rootLogger().fatal({ err: error }, 'The proxy could not start');
  await telemetry.stop();
  if (process.send) process.send({ failed, message }, undefined, undefined, () => process.exit(1));
  else {
    process.stderr.write(`${message}\n`);
    process.exit(1);
  }
}
