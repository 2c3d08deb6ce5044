import { EventEmitter } from 'node:events';
import type { Endpoints } from '@banyan/extraction';
import { z } from 'zod';
import { type ProcessState, Runtime, type Wanted } from './runtime.js';

const HOST = '127.0.0.1';

const Answer = z.object({
  type: z.literal('processes.are'),
  processes: z.array(
    z.object({
      role: z.enum(['service', 'bridge']),
      context: z.string(),
      pid: z.number(),
      ports: z.array(z.number()),
      ready: z.boolean(),
      restarts: z.number(),
      error: z.string().optional(),
    }),
  ),
});

/** The channel to the process that started this one. */
export interface ParentChannel {
  send(message: unknown): void;
  onMessage(fn: (message: unknown) => void): () => void;
}

/** How this process reaches the supervisor; undefined when it was started by hand. */
export function parentChannel(): ParentChannel | undefined {
  if (!process.send) return undefined;
  return {
    send: (message) => void process.send?.(message),
    onMessage: (fn) => {
      process.on('message', fn);
      return () => void process.off('message', fn);
    },
  };
}

/**
 * Services and bridges as children of the supervisor, which is this process's parent, too: so they live on when the
 * control plane dies, and a new one finds them running.
 */
export class ChildProcesses extends Runtime {
  private readonly events = new EventEmitter();
  private states: ProcessState[] = [];
  private wanted: readonly Wanted[] | undefined;
  private forget: (() => void) | undefined;

  constructor(private readonly parent = parentChannel()) {
    super();
    this.events.setMaxListeners(0);
  }

  async start(): Promise<void> {
    this.forget = this.parent?.onMessage((message) => this.receive(message));
    this.parent?.send({ type: 'processes.ask' });
  }

  async stop(): Promise<void> {
    this.forget?.();
  }

  want(list: readonly Wanted[]): void {
    this.wanted = list;
    if (this.parent) return this.parent.send({ type: 'processes.want', wanted: list });
    if (list.length > 0)
      throw new Error(
        'This control plane was not started by `banyan up`, so nobody can start services and bridges for it. ' +
          'Start it with `banyan up`, or set BANYAN_RUNTIME=kubernetes',
      );
  }

  letGo(): void {
    this.wanted = undefined;
  }

  observe(): readonly ProcessState[] {
    return this.states;
  }

  onChange(fn: () => void): () => void {
    this.events.on('change', fn);
    return () => void this.events.off('change', fn);
  }

  private receive(message: unknown): void {
    const answer = Answer.safeParse(message);
    if (!answer.success) return; // the supervisor speaks of other things as well
    const all = Map.groupBy(answer.data.processes, ({ role, context }) => `${role} ${context}`);
    this.states = [...all.values()].map(together);
    this.wantAgain();
    this.events.emit('change');
  }

  /** Another control plane that thought for a moment longer that it acts may have wanted something else since. */
  private wantAgain(): void {
    const names = (list: readonly { role: string; context: string }[]) =>
      list.map(({ role, context }) => `${role} ${context}`).sort();
    if (this.wanted && names(this.wanted).join() !== names(this.states).join())
      this.parent?.send({ type: 'processes.want', wanted: this.wanted });
  }
}

type Told = z.output<typeof Answer>['processes'][number];

/** The instances of one service or bridge as one. */
function together(instances: readonly Told[]): ProcessState {
  const { role, context } = instances[0]!;
  const ready = instances.some((each) => each.ready);
  const error = ready ? undefined : instances.find((each) => each.error !== undefined)?.error;
  const http: string[] = [];
  const rpc: Endpoints['rpc'] = [];
  for (const { ports } of role === 'service' ? instances : [])
    if (ports[0] !== undefined && ports[2] !== undefined) {
      http.push(`http://${HOST}:${ports[0]}`);
      rpc.push({ host: HOST, port: ports[2] });
    }
  return { role, context, ready, ...(error !== undefined && { error }), ...(http[0] && { endpoints: { http, rpc } }) };
}
