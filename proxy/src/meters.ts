import type { Side } from '@banyan/kernel';
import type { Metrics } from '@banyan/platform/telemetry';

const HELP = 'Requests passed on, by context, side, class and status class';

/** Rate, errors and duration per context and side; each series is bound on first use. */
export class Meters {
  readonly #series = new Map<string, ({ observe(seconds: number): void } | undefined)[]>();

  constructor(private readonly metrics: Metrics) {}

  answered(context: string, side: Side | 'proxy', reads: boolean, status: number, seconds: number): void {
    let series = this.#series.get(context);
    if (!series) this.#series.set(context, (series = []));
    const kind = Math.min(9, Math.floor(status / 100));
    const at = kind * 6 + (side === 'monolith' ? 0 : side === 'service' ? 2 : 4) + (reads ? 0 : 1);
    const meter = (series[at] ??= this.metrics.histogram('banyan_proxy_request_duration_seconds', HELP, {
      context,
      side,
      class: reads ? 'read' : 'command',
      status: `${kind}xx`,
    }));
    meter.observe(seconds);
  }

  /** Something that the proxy did about a request, other than passing it on. */
  happened(what: 'held' | 'fenced' | 'fallback' | 'behind' | 'refused', context: string): void {
    this.metrics.counter(`banyan_proxy_${what}`, `Requests that were ${what}`, { context }).add();
  }
}
