import { isDeepStrictEqual } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { ManagedProcess, type ProcessSpec } from './managed-process.js';
import type { Ports } from './ports.js';
import type { Screen } from './screen.js';

const Wanted = z.object({
  role: z.enum(['service', 'bridge']),
  context: z.string().regex(/^[a-z][a-z0-9-]*$/),
  /** Environment variables, above those that every process gets. */
  settings: z.record(z.string(), z.string()),
});
export type Wanted = z.output<typeof Wanted>;

/** From the control plane: the whole wanted set each time, so that a lost message does no harm; or the question what runs. */
const Message = z.discriminatedUnion('type', [
  z.object({ type: z.literal('processes.want'), wanted: z.array(Wanted) }),
  z.object({ type: z.literal('processes.ask') }),
]);

/** One line of the answer, `{ type: 'processes.are', processes }`, which is sent on every change: one for each instance. */
export interface ProcessState {
  role: Wanted['role'];
  context: string;
  /** 0: it does not run now. */
  pid: number;
  /** A service's are HTTP, probes and RPC; a bridge has one, for probes. */
  ports: number[];
  ready: boolean;
  restarts: number;
  /** Why it does not run. */
  error?: string;
}

export interface WantedProcessesOptions {
  screen: Screen;
  ports: Ports;
  /** Where services look for a port, upward; 0: anywhere. */
  portsFrom: number;
  /** How many run of each that is wanted. */
  instancesOf: (role: Wanted['role']) => number;
  /** `instance` counts from 1. */
  specOf: (wanted: Wanted, ports: number[], instance: number) => ProcessSpec;
  /** Something is not as it was: who runs, where, or whether it is ready. */
  changed: () => void;
  /** To the control plane, if there is one just now. */
  tell: (message: { type: 'processes.are'; processes: ProcessState[] }) => void;
  /** How long one may take to stop. */
  stopLimitMs: number;
}

interface Slot {
  /** Counted from 1. */
  readonly instance: number;
  wanted: Wanted | undefined;
  process: ManagedProcess | undefined;
  /** What `process` was started for. */
  runs: Wanted | undefined;
  work: Promise<void>;
}

/**
 * The services and bridges that the control plane wants. They are our children and not its own, so that they live on
 * when it dies; until it says otherwise, the last set it asked for is kept alive.
 */
export class WantedProcesses {
  private readonly slots = new Map<string, Slot>();
  private stopping = false;

  constructor(private readonly options: WantedProcessesOptions) {}

  get running(): ManagedProcess[] {
    return [...this.slots.values()].flatMap(({ process }) => process ?? []);
  }

  get wanted(): Wanted[] {
    return [...this.slots.values()].flatMap(({ wanted }) => wanted ?? []);
  }

  /** Takes a message of the control plane. */
  receive(received: unknown): void {
    const message = Message.safeParse(received);
    if (!message.success) {
      this.notice(`The control plane said what nobody understands: ${z.prettifyError(message.error)}`);
      return;
    }
    if (message.data.type === 'processes.ask') return this.answer();
    if (this.stopping) return;
    const wanted = new Map<string, { each: Wanted; instance: number }>();
    for (const each of message.data.wanted)
      for (let instance = 1; instance <= this.options.instancesOf(each.role); instance++)
        wanted.set([each.role, each.context, ...(instance > 1 ? [instance] : [])].join(' '), { each, instance });
    for (const key of new Set([...this.slots.keys(), ...wanted.keys()])) {
      const { each, instance = 1 } = wanted.get(key) ?? {};
      this.want(key, each, instance);
    }
  }

  /** Resolves when all that is wanted is ready, or with the names of those that are not after `limitMs`. */
  async settled(limitMs: number): Promise<string[]> {
    const missing = () =>
      [...this.slots.entries()].filter(([, { wanted, process }]) => wanted && !process?.ready).map(([key]) => key);
    for (const deadline = Date.now() + limitMs; missing().length > 0 && Date.now() < deadline;) await sleep(20);
    return missing();
  }

  /** From now on the set stays as it is, whatever the control plane asks for. */
  freeze(): void {
    this.stopping = true;
  }

  async stop(role: Wanted['role']): Promise<void> {
    this.freeze();
    const slots = [...this.slots].filter(([key]) => key.startsWith(`${role} `)).map(([, slot]) => slot);
    await Promise.all(
      slots.map(async (slot) => {
        await slot.process?.stop(this.options.stopLimitMs);
        await slot.work;
      }),
    );
  }

  kill(): void {
    this.freeze();
    for (const process of this.running) process.kill();
  }

  /** On every change of a child: tells who asked, and the owner of all. */
  private changed(): void {
    this.options.changed();
    if (!this.stopping) this.answer();
  }

  private answer(): void {
    const processes = [...this.slots.values()].flatMap(({ process, runs }): ProcessState[] => {
      if (!process || !runs) return [];
      const { pid = 0, ready, restarts, error, spec } = process;
      return [{ role: runs.role, context: runs.context, pid, ports: spec.ports, ready, restarts, error }];
    });
    this.options.tell({ type: 'processes.are', processes });
  }

  private want(key: string, wanted: Wanted | undefined, instance: number): void {
    const fresh = { instance, wanted, process: undefined, runs: undefined, work: Promise.resolve() };
    const slot: Slot = this.slots.get(key) ?? fresh;
    this.slots.set(key, slot);
    slot.wanted = wanted;
    // One step after the other for each; the newest wish counts when its turn comes.
    slot.work = slot.work.then(() => this.reconcile(slot)).catch((error: Error) => this.notice(error.message));
  }

  private async reconcile(slot: Slot): Promise<void> {
    const { wanted, process } = slot;
    if (isDeepStrictEqual(wanted, slot.runs)) return;
    if (process) {
      await process.stop(this.options.stopLimitMs);
      this.options.ports.giveBack(process.spec.ports);
      slot.process = slot.runs = undefined;
      this.changed();
    }
    if (!wanted || this.stopping) return;
    slot.runs = wanted;
    slot.process = new ManagedProcess(
      this.options.specOf(wanted, [], slot.instance),
      this.options.screen,
      { changed: () => this.changed() },
      (spec) => this.withPorts(wanted, spec, slot.instance),
    );
    void slot.process.run();
  }

  /** The ports it had, when nobody has taken them, so that nobody has to be told. */
  private async withPorts(wanted: Wanted, spec: ProcessSpec, instance: number): Promise<ProcessSpec> {
    const { ports, portsFrom, specOf } = this.options;
    if (spec.ports.length > 0 && (await ports.stillFree('127.0.0.1', spec.ports))) return spec;
    ports.giveBack(spec.ports);
    const count = wanted.role === 'service' ? 3 : 1;
    return specOf(wanted, await ports.firstFrom(wanted.role === 'service' ? portsFrom : 0, count), instance);
  }

  private notice(message: string): void {
    this.options.screen.tell({ event: 'notice', message });
  }
}
