import { configureLogs, flushLogs, type LogOptions } from './log.js';
import { metrics } from './metrics.js';
import { propagateThroughUndici } from './tracing.js';

export interface TelemetryOptions extends Omit<LogOptions, 'level'> {
  logLevel?: LogOptions['level'];
  /** An OTLP/HTTP collector, e.g. `http://localhost:4318`. Without it the OpenTelemetry SDK is not even loaded. */
  otlpEndpoint?: string | undefined;
}

export interface Telemetry {
  /** Sends what is left; the last thing a process does. */
  stop(): Promise<void>;
}

/**
 * Starts logs, process metrics and traces for this process. Call it first in `main.ts`; it need not be imported before
 * anything else.
 */
export async function startTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  configureLogs({ ...options, level: options.logLevel });
  metrics.collectProcess();
  const stopTraces: () => void | Promise<void> = options.otlpEndpoint
    ? await (await import('./otlp.js')).startOtlp({ service: options.service, endpoint: options.otlpEndpoint })
    : propagateThroughUndici();
  return {
    stop: async () => {
      await stopTraces();
      flushLogs();
    },
  };
}
