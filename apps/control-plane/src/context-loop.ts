import { Logger } from '@nestjs/common';
import { type AnyContract, type Side, reasonOf } from '@banyan/kernel';
import {
  type ContextStatus,
  type GateReading,
  type Stage,
  defaultLimits,
  paritySummary,
  reached,
  stages,
} from '@banyan/extraction';
import { type Evidence, requiredOperations } from '@banyan/extraction/parity';
import { ownerOf, sourceOf } from '@banyan/extraction/protocol';
import { failPoint } from '@banyan/platform/fail-point';
import { ContextCopy } from './context-copy.js';
import { evidenceOf, readGates } from './context-evidence.js';
import { ContextRecord, type Wish } from './context-record.js';
import type { ContextState, ControlStore } from './control-store.js';
import type { FlagStore } from './flags/index.js';
import { HandOver, type HandOverRows } from './hand-over.js';
import { type OwnerDatabases, isAway } from './owner-databases.js';
import type { Reports } from './reports.js';
import type { RoutingTable } from './routing-table.js';
import type { ProcessState, Runtime, Wanted } from './runtime.js';
import type { Streams } from './streams.js';
import { type Moves, type Progress, stepFrom } from './transitions.js';
import { Waker } from './waker.js';

/** Between two looks, ms: while something has to be done, and while a copy is only kept. Without one, rows hardly change. */
const BUSY_MS = 250;
const KEEPING_MS = 500;
const IDLE_MS = 2_000;
/** After a step has failed, ms; doubles from the first to the second. */
const BACK_OFF = { from: 1_000, to: 30_000 };
/** Share of the reads that canary begins with when nobody has said another. */
const FIRST_SHARE = 25;

export interface LoopPorts {
  owners: OwnerDatabases;
  streams: Streams;
  store: ControlStore;
  routing: RoutingTable;
  reports: Reports;
  flags: FlagStore;
  runtime: Runtime;
  /** The processes that this context wants are others now. */
  wantedChanged(): void;
  /** Its status may be another now. */
  told(context: string): void;
}

/**
 * Moves one context's stage towards its target, one step at a time. Level-triggered: each round looks at the rows, the
 * processes and the streams as they are, and does the next thing; it can be killed at any instant.
 */
export class ContextLoop implements Moves {
  readonly context: string;
  private readonly log = new Logger('Reconciler');
  private readonly waker = new Waker();
  private readonly record: ContextRecord;
  private readonly copy: ContextCopy;
  private readonly handOver: HandOver;
  private readonly required: readonly string[];
  /** Resolves when the routers can be told something about it. */
  readonly looked: Promise<void>;
  private hasLooked!: () => void;
  private rows: HandOverRows | undefined;
  private doing: string | null = null;
  private blocked: string | null = null;
  private gates: GateReading[] = [];
  private failures = 0;
  private retryAt = 0;
  /** The service or the bridge was away since the figures began. */
  private disturbed = false;

  constructor(
    contract: AnyContract,
    private readonly ports: LoopPorts,
    state: ContextState,
  ) {
    this.context = contract.name;
    this.record = new ContextRecord(this.context, ports.store, state);
    this.looked = new Promise((resolve) => (this.hasLooked = resolve));
    this.required = requiredOperations(contract);
    this.copy = new ContextCopy(this.context, ports);
    this.handOver = new HandOver(
      this.context,
      ports.owners,
      {
        rows: () => this.look(),
        hold: (holding) => this.tellRouters(holding),
        want: (rows) => this.wantedOwner(rows),
        waits: (reason) => this.say(this.doing, reason),
      },
      this.waker,
    );
  }

  wake(): void {
    this.waker.wake();
  }

  /** Until the signal says that another control plane acts, or this one stops. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.waker.wake(), { once: true });
    while (!signal.aborted) {
      let waitMs = BUSY_MS;
      try {
        waitMs = await this.round(signal);
      } catch (error) {
        this.failed(error);
      }
      this.ports.told(this.context);
      if (!signal.aborted) await this.waker.sleep(waitMs);
    }
  }

  /** Asks for a target: `set` puts it into the flags. */
  async ask(wish: Wish, set: () => Promise<void>): Promise<void> {
    await this.record.wishFor(wish, set);
    this.retryAt = 0;
    await this.followFlags();
    this.wake();
  }

  async freeze(frozen: boolean): Promise<void> {
    await this.record.change({ frozen });
    this.wake();
  }

  /** The processes that are to run for this context. */
  wanted(): Wanted[] {
    return this.state.outside && (this.state.stage !== 'monolith' || this.copy.made) ? this.copy.processes() : [];
  }

  stage(): { stage: Stage; since: string; target: Stage } {
    const { stage, since, target } = this.state;
    return { stage, since, target };
  }

  async status(): Promise<ContextStatus> {
    const { stage, target, percent, frozen } = this.state;
    const { stream } = this.copy;
    return {
      context: this.context,
      stage,
      target,
      percent,
      owner: this.rows ? ownerOf(this.rows) : 'monolith',
      epoch: this.rows ? this.rows[sourceOf(this.rows)].epoch : 0,
      frozen,
      doing: this.doing,
      blocked: this.obstacles(),
      lag: stream?.lag ?? null,
      backfill: stream?.copy ? { percent: stream.copy.percent, rows: stream.copy.rows } : null,
      parity: reached(stage, 'shadow') ? paritySummary(this.evidence()) : null,
      gates: this.gates,
      transitions: await this.record.transitions(),
    };
  }

  /** What is in the way of the next step, and what is ill besides. */
  private obstacles(): string | null {
    const ill = (['bridge', 'service'] as const).flatMap((role) => {
      const { ready, error } = this.process(role) ?? {};
      return !ready && error ? `The ${role} of ${this.context} does not run: ${error}. Its log says more.` : [];
    });
    const all = [this.blocked, this.copy.stream?.problem, ...ill, this.ports.flags.problems()[this.context]];
    return [...new Set(all.filter(Boolean))].join(' ') || null;
  }

  /** One look, and at most one step. Answers how long nothing else has to be looked at. */
  private async round(signal: AbortSignal): Promise<number> {
    await this.record.flush();
    await this.followFlags();
    const rows = await this.look();
    if (!ownerOf(rows)) return this.finishHandOver(signal);
    await this.followOwner(rows);
    await this.tellRouters(false);
    this.hasLooked();
    const upkeep = await this.copy.keep(this.state, rows);
    if (upkeep?.fellBack) {
      await this.enter('replicate', 'control-plane', upkeep.fellBack);
      return this.say('making the copy anew', upkeep.fellBack);
    }
    await this.countAfresh();
    this.gates = this.readGates();
    if (upkeep?.progress && upkeep.progress !== 'done') return this.say(...words(upkeep.progress));
    return this.step(rows, signal);
  }

  private async step(rows: HandOverRows, signal: AbortSignal): Promise<number> {
    const { stage, target, frozen, forceTo } = this.state;
    const step = stepFrom(stage, target);
    if (!step) {
      if (stage === 'monolith' && this.state.outside) return Date.now() < this.retryAt ? BUSY_MS : this.tidyUp();
      this.failures = this.retryAt = 0;
      this.say(null, null);
      return this.state.outside ? KEEPING_MS : IDLE_MS;
    }
    if (frozen) return this.say(null, `It is frozen: no step towards ${target} is taken. Unfreeze it to go on`);
    if (Date.now() < this.retryAt) return BUSY_MS;
    const missing = step.gated ? this.gates.filter(({ ok }) => !ok) : [];
    const forced = missing.length > 0 && forceTo === target;
    if (missing.length > 0 && !forced)
      return this.say(`waiting at the gates of ${step.to}`, missing.map(({ reason }) => reason).join(' '));

    const progress = step.move ? await this[step.move](rows, signal) : 'done';
    if (progress !== 'done') return this.say(...words(progress));
    const { actor, reason } = this.state;
    if (this.state.stage === stage) await this.enter(step.to, actor, reason, forced);
    this.failures = this.retryAt = 0;
    this.wake();
    return 0;
  }

  async makeCopy(rows: HandOverRows): Promise<Progress> {
    if (!this.state.outside) {
      // Remembered before anything exists, so that all of it is found again.
      await this.record.change({ outside: true });
    }
    return this.copy.make(rows);
  }

  async giveShare(): Promise<Progress> {
    const { target, percent, actor } = this.state;
    if (percent === 0)
      await this.ports.flags.setTarget(this.context, {
        stage: target,
        percent: FIRST_SHARE,
        actor,
        reason: 'canary begins with this share',
      });
    return 'done';
  }

  takeOver(rows: HandOverRows, signal: AbortSignal): Promise<Progress> {
    return this.handTo('service', rows, signal);
  }

  takeBack(rows: HandOverRows, signal: AbortSignal): Promise<Progress> {
    return this.handTo('monolith', rows, signal);
  }

  private async handTo(to: Side, rows: HandOverRows, signal: AbortSignal): Promise<Progress> {
    const ready = await this.copy.readyToHandOver(to);
    if (ready !== 'done') return ready;
    this.say(`handing over to the ${to}`, null);
    this.ports.told(this.context);
    await this.handOver.begin(rows, signal);
    await this.finishHandOver(signal);
    const { owner } = this.ports.routing.of(this.context) ?? {};
    if (owner === to) return 'done';
    return { doing: `preparing the hand-over to the ${to}`, blocked: this.blocked ?? `The ${to} has not opened` };
  }

  /** While nobody owns it. Routers hear of the new owner first, before anything is written down. */
  private async finishHandOver(signal: AbortSignal): Promise<number> {
    this.doing ??= 'changing the owner';
    if (this.rows && !ownerOf(this.rows)) await this.tellRouters(true);
    this.hasLooked();
    const end = await this.handOver.finish(signal);
    if (!end) return BUSY_MS;
    failPoint('handover-before-release');
    await this.followOwner(end.rows);
    await this.tellRouters(false);
    this.copy.handedOver();
    if (end.calledOff) {
      this.backOff();
      this.say(
        null,
        `The hand-over was called off: nobody opened in time. It is tried again in ${this.waitText()}; ` +
          'if that happens again, look at the log of the bridge',
      );
    }
    this.wake();
    return 0;
  }

  /** live is the stage in which the service is the owner, and the rows say who is. */
  private async followOwner(rows: HandOverRows): Promise<void> {
    const owner = ownerOf(rows);
    const { stage, target, actor, reason, outside } = this.state;
    if (owner === 'service' && stage !== 'live') {
      if (!outside) await this.record.change({ outside: true });
      const asked = target === 'live';
      await this.enter(
        'live',
        asked ? actor : 'control-plane',
        asked ? reason : 'the service was found to be the owner',
        this.state.forceTo === 'live' && this.gates.some(({ ok }) => !ok),
      );
    }
    if (owner === 'monolith' && stage === 'live') {
      const asked = target !== 'live';
      await this.enter(
        'canary',
        asked ? actor : 'control-plane',
        asked ? reason : 'the monolith was found to be the owner',
      );
    }
  }

  private async tidyUp(): Promise<number> {
    const progress = await this.copy.remove();
    if (progress !== 'done') return this.say(...words(progress));
    await this.record.change({ outside: false });
    return this.say(null, null);
  }

  /** Routers hear of it first; a crash before it is written down is no matter, because the round is done again. */
  private async enter(to: Stage, actor: string, reason: string, forced = false): Promise<void> {
    const { stage: from, since } = this.state;
    const { divergences } = this.ports.reports.evidence(this.context, since);
    const gates = stages.indexOf(to) > stages.indexOf(from) ? this.gates : [];
    this.record.enter(to, { actor, reason, forced }, gates, divergences);
    this.disturbed = false;
    this.log.log({ msg: 'stage', context: this.context, from, to, actor, reason });
    await this.tellRouters(false);
    failPoint('stage-before-write');
    await this.record.flush();
    failPoint('stage-after-write');
    this.ports.wantedChanged();
  }

  private get state(): ContextState {
    return this.record.state;
  }

  private async followFlags(): Promise<void> {
    if (await this.record.follow(this.ports.flags.targets()[this.context])) this.failures = this.retryAt = 0;
  }

  private wantedOwner(rows: HandOverRows): Side {
    // What has begun is brought to an end; nothing new is begun while frozen.
    if (this.state.frozen && !ownerOf(rows)) return sourceOf(rows) === 'monolith' ? 'service' : 'monolith';
    return this.state.target === 'live' ? 'service' : 'monolith';
  }

  private async look(): Promise<HandOverRows> {
    const { owners } = this.ports;
    const find = this.state.outside || !this.rows?.monolith.open;
    const { monolith, service } = await owners.rows(this.context, find);
    if (monolith.open && service?.open) {
      // Not read at the same instant, so a hand-over may have passed between.
      const again = await owners.rows(this.context, false);
      if (!again.monolith.open || again.monolith.epoch !== monolith.epoch) return this.look();
      throw new Error(
        `Both databases say that they own ${this.context} (epochs ${monolith.epoch} and ${service.epoch}): one of them is ` +
          `of another installation. Nothing is done. Drop the database that is not yours, or set ` +
          `${this.context.toUpperCase()}_SERVICE_DATABASE_URL`,
      );
    }
    if (service) owners.listen(this.context);
    this.rows = {
      monolith,
      service: service ?? { side: 'service', open: false, epoch: 0, minEpoch: 0, ageMs: 0 },
    };
    return this.rows;
  }

  private async tellRouters(holding: boolean): Promise<void> {
    if (!this.rows) return;
    const { stage, since, outside } = this.state;
    const told = this.ports.routing.of(this.context);
    const owner = ownerOf(this.rows);
    const from = sourceOf(this.rows);
    await this.ports.routing.tell(this.context, {
      stage,
      since,
      holding,
      // While nobody owns it, the last one counts: it was the owner at the epoch before its closing.
      owner: owner ?? from,
      epoch: owner ? this.rows[owner].epoch : this.rows[from].epoch - 1,
      service: outside ? (this.process('service')?.endpoints ?? told?.service ?? null) : null,
    });
  }

  private process(role: ProcessState['role']): ProcessState | undefined {
    return this.ports.runtime.observe().find((each) => each.role === role && each.context === this.context);
  }

  /** What was compared while the service or the bridge was away says nothing: figures begin again when they are back. */
  private async countAfresh(): Promise<void> {
    if (!reached(this.state.stage, 'shadow')) return;
    const { lag } = this.copy.stream ?? {};
    const well =
      this.process('service')?.ready === true &&
      this.process('bridge')?.ready === true &&
      (lag?.ms ?? 0) <= defaultLimits.lagMs;
    if (!well) this.disturbed = true;
    else if (this.disturbed) {
      this.disturbed = false;
      await this.record.change({ since: new Date().toISOString() });
      await this.tellRouters(false);
    }
  }

  private evidence(): Evidence {
    return evidenceOf(this.ports.reports, this.context, this.state.since);
  }

  private readGates(): GateReading[] {
    const next = stages[stages.indexOf(this.state.stage) + 1];
    if (!next || !this.state.outside) return [];
    return readGates(next, {
      stream: this.copy.stream,
      service: this.process('service'),
      evidence: this.evidence(),
      required: this.required,
    });
  }

  private say(doing: string | null, blocked: string | null): number {
    this.doing = doing;
    this.blocked = blocked;
    return BUSY_MS;
  }

  private failed(error: unknown): void {
    const reason = reasonOf(error);
    if (isAway(error)) {
      this.blocked = `Waiting: ${reason}`;
      return;
    }
    this.backOff();
    this.blocked = `${reason.replace(/\.?$/, '.')} It is tried again in ${this.waitText()}`;
    this.log.warn({ msg: 'a step failed', context: this.context, err: error });
  }

  private backOff(): void {
    const wait = Math.min(BACK_OFF.to, BACK_OFF.from * 2 ** this.failures);
    this.failures += 1;
    this.retryAt = Date.now() + wait;
  }

  private waitText(): string {
    return `${Math.max(1, Math.ceil((this.retryAt - Date.now()) / 1000))} s`;
  }
}

const words = ({ doing, blocked }: { doing: string; blocked?: string }): [string, string | null] => [
  doing,
  blocked ?? null,
];
