export { observeHttp, type ObserveHttpOptions } from './http.js';
export { type InternalServer, type InternalServerOptions, startInternalServer } from './internal-server.js';
export { flushLogs, type LogLevel, rootLogger } from './log.js';
export { type Labels, type Meter, Metrics, metrics, type Reading } from './metrics.js';
export { type CheckResult, Readiness, readiness, type ReadinessReport } from './readiness.js';
export { REDACTED, redactText, redactValue } from './redaction.js';
export { type GracefulShutdown, gracefulShutdown, type ShutdownOptions, type ShutdownPhase } from './shutdown.js';
export { startTelemetry, type Telemetry, type TelemetryOptions } from './telemetry.js';
export {
  currentTraceId,
  currentTraceparent,
  type SpanAttributes,
  traceHeaders,
  withRemoteParent,
  withSpan,
} from './tracing.js';
