import { createRequire } from 'node:module';
import { diag, DiagLogLevel, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { PgInstrumentation } from '@opentelemetry/instrumentation-pg';
import { UndiciInstrumentation } from '@opentelemetry/instrumentation-undici';
import { NodeSDK, type NodeSDKConfiguration } from '@opentelemetry/sdk-node';
import { rootLogger } from './log.js';
import { redactValue } from './redaction.js';
import { recordSpansWith } from './tracing.js';

/**
 * The OpenTelemetry SDK, loaded only when there is somewhere to send traces to (it takes 190 ms to load).
 *
 * No loader hook and no order of imports: undici reports through diagnostics channels, HTTP server spans come from our
 * Fastify hook (which knows the route pattern), and pg is one CommonJS module whose prototypes get patched in place,
 * however and whenever it was imported.
 */
export async function startOtlp(options: { service: string; endpoint: string }): Promise<() => Promise<void>> {
  const log = rootLogger();
  const onDiag = (message: string): void => log.warn({ context: 'OpenTelemetry', msg: message });
  const quiet = (): void => undefined;
  diag.setLogger(
    { error: onDiag, warn: quiet, info: quiet, debug: quiet, verbose: quiet },
    { logLevel: DiagLogLevel.ERROR, suppressOverrideMessage: true },
  );

  const sdk = new NodeSDK({
    serviceName: options.service,
    traceExporter: withoutSecrets(new OTLPTraceExporter({ url: tracesUrl(options.endpoint) })),
    instrumentations: [
      // Statements go out with their placeholders, never with their values. Without a parent there is no span:
      // the sweeps of relay and jobs would drown the rest. The connect spans stay: they show the wait for the pool,
      // and they carry the trace across its queue.
      new PgInstrumentation({ requireParentSpan: true, enhancedDatabaseReporting: false }),
      new UndiciInstrumentation({
        requireParentforSpans: true,
        // Query strings are where addresses and tokens travel.
        startSpanHook: ({ origin, path }) => ({ 'url.full': `${origin}${path.split('?', 1)[0]}`, 'url.query': '' }),
      }),
    ],
    // Ours are in place already, and work without the SDK too.
    contextManager: null as unknown as undefined,
    textMapPropagator: null,
    // The process detector would send the command line, and a database URL with it.
    autoDetectResources: false,
    metricReaders: [],
    logRecordProcessors: [],
  });
  sdk.start();
  createRequire(import.meta.url)('pg');
  recordSpansWith(trace.getTracer('banyan'));

  return async () => {
    recordSpansWith(undefined);
    await sdk.shutdown();
  };
}

function tracesUrl(endpoint: string): string {
  return endpoint.endsWith('/v1/traces') ? endpoint : `${endpoint.replace(/\/+$/, '')}/v1/traces`;
}

type SpanExporter = NodeSDKConfiguration['traceExporter'];
type Spans = Parameters<SpanExporter['export']>[0];

/** The last door before the network: what an instrumentation or an error message let slip is taken out here. */
function withoutSecrets(exporter: SpanExporter): SpanExporter {
  return {
    export(spans, done) {
      exporter.export(spans.map(redacted), done);
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}

function redacted(span: Spans[number]): Spans[number] {
  // A view on the span: exporters read getters of its prototype as well.
  return Object.create(span, {
    attributes: { value: redactValue(span.attributes) },
    status: { value: redactValue(span.status) },
    events: {
      value: span.events.map((event) => ({ ...event, attributes: redactValue(event.attributes ?? {}) })),
    },
  }) as Spans[number];
}
