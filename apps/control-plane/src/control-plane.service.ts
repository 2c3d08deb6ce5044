import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import { type AnyContract, DomainError } from '@banyan/kernel';
import type { ContextStatus } from '@banyan/extraction';
import { fail } from '@banyan/platform/http';
import { ContextLoop, type LoopPorts } from './context-loop.js';
import type { ContextState } from './control-store.js';
import { Leadership } from './leadership.js';

export interface ControlPlaneOptions extends Omit<LoopPorts, 'wantedChanged' | 'told'> {
  contracts: readonly AnyContract[];
  /** Where the leadership is decided: the control plane's own schema. */
  url: string;
  /** Runs while this control plane acts; returns what ends it. */
  whileLeading?: () => (() => Promise<void>) | void;
  /** While it stands by, what it is asked is answered by the one that acts. */
  forwards: boolean;
}

/** How long the first word to the routers waits for a look at every context, ms. */
const FIRST_LOOK_MS = 1_000;

/** A context that has never left. */
const atHome = (since: string): ContextState => ({
  stage: 'monolith',
  since,
  target: 'monolith',
  percent: 0,
  actor: 'control-plane',
  reason: 'at first',
  forceTo: null,
  frozen: false,
  outside: false,
});

/** One loop per context while this control plane is the one that acts; nothing while it stands by. */
export class ControlPlane {
  private readonly log = new Logger('ControlPlane');
  private readonly events = new EventEmitter();
  private readonly leadership: Leadership;
  private readonly statuses = new Map<string, string>();
  private readonly forget: (() => void)[] = [];
  private loops = new Map<string, ContextLoop>();

  constructor(private readonly options: ControlPlaneOptions) {
    this.events.setMaxListeners(0);
    this.leadership = new Leadership(options.url, (signal) => this.lead(signal));
  }

  /** Resolves when it acts, or after `withinMs` when another one does. */
  async start(withinMs: number): Promise<void> {
    const { owners, flags, runtime } = this.options;
    await runtime.start();
    const wakeAll = () => this.loops.forEach((loop) => loop.wake());
    this.forget.push(
      flags.onChange(wakeAll),
      runtime.onChange(wakeAll),
      owners.onOpened((context) => this.loops.get(context)?.wake()),
    );
    let timer: NodeJS.Timeout | undefined;
    const leading = new Promise<void>((resolve) => {
      this.events.once('leading', resolve);
      timer = setTimeout(resolve, withinMs);
    });
    this.leadership.start();
    await leading;
    clearTimeout(timer);
  }

  async stop(): Promise<void> {
    for (const end of this.forget) end();
    await this.leadership.stop();
    await this.options.runtime.stop();
    await this.options.owners.stop();
  }

  get leading(): boolean {
    return this.loops.size > 0;
  }

  /** The loop of a context, or a refusal that says what there is. */
  loop(context: string): ContextLoop {
    const names = this.options.contracts.map(({ name }) => name);
    if (!names.includes(context))
      throw new DomainError(
        'CONTEXT_UNKNOWN',
        'not_found',
        `There is no context ${context}. Take one of ${names.join(', ')}`,
      );
    this.mustLead();
    return this.loops.get(context)!;
  }

  all(): ContextLoop[] {
    this.mustLead();
    return [...this.loops.values()];
  }

  /** Throws while it neither acts nor passes on what it is asked to one that does. */
  mustServe(): void {
    if (!this.options.forwards || !this.leadership.standsBy) this.mustLead();
  }

  mustLead(): void {
    if (!this.leading) throw this.standby;
  }

  /** What is said to who asks the wrong one. */
  get standby(): DomainError {
    return fail(
      'UNAVAILABLE',
      'This control plane stands by: another one acts, or its database is away. Ask again, or ask the other one',
    );
  }

  onStatus(fn: (status: ContextStatus) => void): () => void {
    this.events.on('status', fn);
    return () => void this.events.off('status', fn);
  }

  /** Ends the streams to routers and operators: who asks next has to ask another control plane. */
  onStandBy(fn: () => void): () => void {
    this.events.on('standing by', fn);
    return () => void this.events.off('standing by', fn);
  }

  private async lead(signal: AbortSignal): Promise<void> {
    const { contracts, store, routing, reports, whileLeading } = this.options;
    await routing.start();
    await reports.start();
    const states = await store.states();
    const since = new Date().toISOString();
    const ports: LoopPorts = {
      ...this.options,
      wantedChanged: () => this.want(),
      told: (context) => void this.tell(context),
    };
    this.loops = new Map(
      contracts.map((contract) => [
        contract.name,
        new ContextLoop(contract, ports, states.get(contract.name) ?? atHome(since)),
      ]),
    );
    try {
      this.want();
    } catch (err) {
      // Contexts that have left are served by what runs already; a step that needs a process says what is wrong.
      this.log.error({ msg: 'processes cannot be wanted', err });
    }
    this.events.emit('leading');
    const end = whileLeading?.();
    const loops = [...this.loops.values()];
    try {
      const running = Promise.all(loops.map((loop) => loop.run(signal)));
      // Routers keep what they know until it can be told better; one database that is away must not keep the others waiting.
      await Promise.race([Promise.all(loops.map((loop) => loop.looked)), sleep(FIRST_LOOK_MS)]);
      if (!signal.aborted) routing.open();
      await running;
    } finally {
      this.loops = new Map();
      this.options.runtime.letGo();
      this.statuses.clear();
      this.events.emit('standing by');
      await end?.();
      await reports.stop();
      await routing.stop();
    }
  }

  /** The whole list, each time. */
  private want(): void {
    this.options.runtime.want([...this.loops.values()].flatMap((loop) => loop.wanted()));
  }

  private async tell(context: string): Promise<void> {
    try {
      const status = await this.loops.get(context)?.status();
      if (!status) return;
      const text = JSON.stringify(status);
      if (this.statuses.get(context) === text) return;
      this.statuses.set(context, text);
      this.events.emit('status', status);
    } catch (err) {
      this.log.debug({ msg: 'no status just now', context, err });
    }
  }
}
