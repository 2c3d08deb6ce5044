import { expect, it } from 'vitest';
import { configureLogs, rootLogger } from './log.js';
import { Metrics } from './metrics.js';
import { withRemoteParent, withSpan } from './tracing.js';

/** Prints what telemetry costs while nobody collects traces. Measured, not asserted: the machine decides the numbers. */
it('costs little when tracing is off', () => {
  configureLogs({ service: 'spec', destination: { write: () => undefined } });
  const meter = new Metrics().operation('inventory', 'reserve', 'local');
  const attributes = { context: 'inventory' };
  const results = {
    'withSpan, ns': nanoseconds(() => withSpan('step', attributes, () => 1)),
    'withRemoteParent, ns': nanoseconds(() => withRemoteParent(undefined, 'relay', attributes, () => 1)),
    'meter.observe, ns': nanoseconds(() => meter.observe('ok', 0.004)),
    'log line, clean, ns': nanoseconds(
      () => rootLogger().info({ msg: 'request', route: '/v1/stock/:sku', ms: 1.5 }),
      20_000,
    ),
    'log line, redacted, ns': nanoseconds(
      () => rootLogger().info({ msg: 'request', user: { email: 'a@b.example' } }),
      20_000,
    ),
  };
  console.table(results);
  expect(Object.values(results).every(Number.isFinite)).toBe(true);
});

function nanoseconds(fn: () => unknown, calls = 200_000): number {
  for (let i = 0; i < calls; i++) fn();
  const start = process.hrtime.bigint();
  for (let i = 0; i < calls; i++) fn();
  return Math.round(Number(process.hrtime.bigint() - start) / calls);
}
