import { Logger } from '@nestjs/common';
import { type Divergence, type Evidence, type Report, mergeDivergences, mergeReports } from '@banyan/extraction/parity';
import type { ControlStore } from './control-store.js';

/** Reports come every 500 ms from each proxy; what is on disk may be this old. */
const SAVE_MS = 1_000;

/** The last report of every instance: figures are cumulative, and what an ended process counted stays counted. */
export class Reports {
  private readonly log = new Logger('Reports');
  private readonly last = new Map<string, Report>();
  private readonly unsaved = new Set<string>();
  private acknowledged = new Map<string, Record<string, { by: string; reason: string; at: string }>>();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly store: ControlStore) {}

  async start(): Promise<void> {
    for (const report of await this.store.reports())
      if (!this.last.has(report.instance)) this.last.set(report.instance, report);
    this.acknowledged = await this.store.acknowledgements();
    this.timer ??= setInterval(() => void this.save(), SAVE_MS).unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.timer);
    this.timer = undefined;
    await this.save();
    // Whoever acts next hears more than we have: what was saved is read again before we act again.
    for (const instance of this.last.keys()) if (!this.unsaved.has(instance)) this.last.delete(instance);
  }

  take(report: Report): void {
    this.last.set(report.instance, report);
    this.unsaved.add(report.instance);
  }

  /** What all instances have counted of a context since it entered its stage. */
  evidence(context: string, since: string): Evidence {
    return mergeReports(this.last.values(), context, since);
  }

  /** What was found in this stage and in those before it. */
  async divergences(context: string, since: string): Promise<Divergence[]> {
    const past = await this.store.pastDivergences(context);
    return mergeDivergences([...past, this.evidence(context, since).divergences], this.acknowledged.get(context));
  }

  async acknowledge(context: string, divergence: string, actor: string, reason: string): Promise<void> {
    await this.store.acknowledge(context, divergence, actor, reason);
    this.acknowledged = await this.store.acknowledgements();
  }

  acknowledgements(context: string): Readonly<Record<string, { by: string; reason: string; at: string }>> {
    return this.acknowledged.get(context) ?? {};
  }

  private async save(): Promise<void> {
    for (const instance of [...this.unsaved]) {
      this.unsaved.delete(instance);
      const report = this.last.get(instance);
      try {
        if (report) await this.store.saveReport(report);
      } catch (err) {
        this.unsaved.add(instance);
        this.log.warn({ msg: 'a report is not kept yet', err });
        return;
      }
    }
  }
}
