import { EventEmitter } from 'node:events';
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
    if (this.parent) return this.parent.send({ type: 'processes.want', wanted: list });
    if (list.length > 0)
      throw new Error(
        'This control plane was not started by `banyan up`, so nobody can start services and bridges for it. ' +
          'Start it with `banyan up`, or set BANYAN_RUNTIME=kubernetes',
      );
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
    this.states = answer.data.processes.map(({ role, context, ports, ready, error }): ProcessState => {
      const [http, , rpc] = ports;
      const endpoints =
        role === 'service' && http !== undefined && rpc !== undefined
          ? { http: `http://${HOST}:${http}`, rpc: { host: HOST, port: rpc } }
          : undefined;
      return { role, context, ready, ...(error !== undefined && { error }), ...(endpoints && { endpoints }) };
    });
    this.events.emit('change');
  }
}
