import type { Side } from '@banyan/kernel';
import { ConfigError, readConfig } from '@banyan/platform/config';
import { armFailPoints } from '@banyan/platform/fail-point';
import {
  gracefulShutdown,
  metrics,
  readiness,
  rootLogger,
  startInternalServer,
  startTelemetry,
} from '@banyan/platform/telemetry';
import type { SharedLog } from '@banyan/replication';
import { Bridge } from './bridge.js';

const config = readConfig();
const { context, monolithDatabaseUrl, serviceDatabaseUrl, failPoints } = config.extraction;
if (!context || !monolithDatabaseUrl || !serviceDatabaseUrl) {
  const names = ['BANYAN_CONTEXT', 'BANYAN_DATABASE_URL_MONOLITH', 'BANYAN_DATABASE_URL_SERVICE'];
  process.stderr.write(`${new ConfigError([`A bridge needs ${names.join(', ')}`]).message}\n`);
  process.exit(78);
}

const telemetry = await startTelemetry({ service: 'bridge', ...config.telemetry });
const shutdown = gracefulShutdown({ timeoutMs: config.http.shutdownMs });
shutdown.hook('telemetry', 'telemetry', () => telemetry.stop());
// The supervisor is gone: nobody would stop us any more.
if (process.send) process.on('disconnect', () => shutdown.now('the supervisor is gone'));
armFailPoints(failPoints);

try {
  const internal = await startInternalServer({ port: config.http.internalPort, host: config.http.internalHost });
  shutdown.hook('state', 'internal server', () => internal.close());

  const sharedLog = config.transports.bridge === 'jetstream' ? await sharedLogsOf(context) : undefined;
  const bridge = new Bridge(context, { monolith: monolithDatabaseUrl, service: serviceDatabaseUrl }, sharedLog);
  readiness.check('stream', () => bridge.check());
  watch(bridge, context);
  const stop = new AbortController();
  const ended = bridge.run(stop.signal, () => {
    readiness.open();
    process.send?.('ready');
  });
  shutdown.hook('work', 'stream', () => (stop.abort(), ended));
  shutdown.hook('state', 'pools', () => bridge.close());
} catch (error) {
  rootLogger().fatal({ err: error }, 'The bridge could not start');
  await telemetry.stop();
  process.exit(1);
}

/** Nothing of NATS is loaded without it. */
async function sharedLogsOf(context: string): Promise<(from: Side) => SharedLog> {
  const { Nats, logStream, logSubject, natsUser } = await import('@banyan/messaging/nats');
  const broker = await Nats.connect(config.nats!, { name: natsUser.bridge(context) });
  shutdown.hook('state', 'nats', () => broker.close());
  return (from) => ({
    broker,
    stream: logStream(context, from),
    subject: logSubject(context, from),
    maxBytes: config.extraction.walKeepMb * 1024 * 1024,
    publish: true,
  });
}

function watch(bridge: Bridge, context: string): void {
  const labels = () => ({ context, from: bridge.from });
  metrics.gauge('banyan_bridge_rows_applied', 'Rows written since the bridge started', () => [
    { labels: labels(), value: bridge.rows },
  ]);
  metrics.gauge('banyan_bridge_lag_bytes', 'Log of the owner that the other side does not have yet', async () => [
    { labels: labels(), value: (await bridge.state()).lag?.bytes ?? 0 },
  ]);
  metrics.gauge('banyan_bridge_retained_bytes', 'Log that the owner keeps for the bridge', async () => [
    { labels: labels(), value: (await bridge.state()).retainedBytes },
  ]);
}
