import { beforeEach, describe, expect, it } from 'vitest';
import { ChildProcesses, type ParentChannel } from './child-processes.js';

/** The supervisor: what it was told, and what it says. */
class Parent implements ParentChannel {
  readonly told: unknown[] = [];
  private readonly listeners = new Set<(message: unknown) => void>();

  send(message: unknown): void {
    this.told.push(message);
  }
  onMessage(fn: (message: unknown) => void): () => void {
    this.listeners.add(fn);
    return () => void this.listeners.delete(fn);
  }
  say(...processes: object[]): void {
    for (const fn of this.listeners) fn({ type: 'processes.are', processes });
  }
}

const service = (first: number, more: object = {}) => ({
  ...{ role: 'service', context: 'inventory', pid: 7, ports: [first, first + 1, first + 2], ready: true, restarts: 0 },
  ...more,
});
const wanted = { role: 'service', context: 'inventory', settings: {} } as const;
const at = (...ports: number[]) => ({
  http: ports.map((port) => `http://127.0.0.1:${port}`),
  rpc: ports.map((port) => ({ host: '127.0.0.1', port: port + 2 })),
});

describe('Services and bridges as children of the supervisor', () => {
  let parent: Parent;
  let runtime: ChildProcesses;
  beforeEach(async () => {
    parent = new Parent();
    runtime = new ChildProcesses(parent);
    await runtime.start();
    parent.told.length = 0;
  });

  it('all instances of one service are one: ready as long as one is, and reached at all of their addresses', () => {
    parent.say(service(100), service(200, { ready: false, error: 'killed' }), {
      ...service(300),
      role: 'bridge',
      ports: [300],
    });
    expect(runtime.observe()).toEqual([
      { role: 'service', context: 'inventory', ready: true, endpoints: at(100, 200) },
      { role: 'bridge', context: 'inventory', ready: true },
    ]);
    parent.say(service(100, { ready: false, error: 'no disk' }), service(200, { ready: false }));
    expect(runtime.observe()).toEqual([
      { role: 'service', context: 'inventory', ready: false, error: 'no disk', endpoints: at(100, 200) },
    ]);
    parent.say(service(0, { ready: false, ports: [] }));
    expect(runtime.observe()).toEqual([{ role: 'service', context: 'inventory', ready: false }]);
  });

  it('what another control plane wants in between is put right by the one that acts, and by no other', () => {
    runtime.want([wanted]);
    parent.say(service(100));
    expect(parent.told).toHaveLength(1);
    parent.say();
    expect(parent.told.at(-1)).toEqual({ type: 'processes.want', wanted: [wanted] });
    expect(parent.told).toHaveLength(2);
    runtime.letGo();
    parent.say();
    expect(parent.told).toHaveLength(2);
  });
});
