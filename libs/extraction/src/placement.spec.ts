import { type ConsistencyToken, type Side, newId } from '@banyan/kernel';
import type { Decision, Envelope, Kind, RemoteTransport } from '@banyan/messaging';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { ExtractionPlacement } from './placement.js';
import type { ContextRouting, Routing } from './routing.js';

const transport = (name: string) => ({ name }) as RemoteTransport;
const monolithRpc = { host: 'monolith', port: 1 };

/** A placement and the control plane that it listens to. */
function follow(options: { side: Side; context?: string; canary?: (userId: string) => boolean; routing?: Routing }) {
  let current = options.routing;
  const listeners: ((routing: Routing) => void)[] = [];
  const placement = new ExtractionPlacement({
    side: options.side,
    context: options.context,
    routing: { current: () => current, onChange: (listener) => (listeners.push(listener), () => {}) },
    canary: { isService: (_context, { userId }) => options.canary?.(userId!) ?? false },
    transports: { to: ({ addresses }) => transport(addresses[0]!.host) },
    monolith: [monolithRpc],
  });
  const tell = (changes: Partial<ContextRouting>) => {
    current = routing({ ...current?.contexts['inventory'], ...changes }, (current?.revision ?? 0) + 1);
    for (const listener of listeners) listener(current);
  };
  /** Where it goes: `here`, `hold`, or the name of the process. */
  const where = (kind: Kind, envelope?: Partial<Envelope>): string =>
    say(placement.decide('inventory', kind, { actor: { kind: 'anonymous' }, ...envelope } as Envelope));
  return { placement, tell, where };
}
const say = (decision: Decision): string =>
  decision.at === 'local' ? 'here' : decision.at === 'hold' ? 'hold' : decision.via.name;

const routing = (changes: Partial<ContextRouting> = {}, revision = 1): Routing => ({
  revision,
  monolith: { http: ['http://monolith'], rpc: [monolithRpc] },
  contexts: {
    inventory: {
      stage: 'monolith',
      owner: 'monolith',
      epoch: 1,
      holding: false,
      since: '2026-01-01T00:00:00.000Z',
      service: { http: ['http://service'], rpc: [{ host: 'service', port: 2 }] },
      ...changes,
    },
  },
});
const user = (): Envelope['actor'] => ({ kind: 'user', id: newId(), roles: ['customer'] });
const wrote = (side: Side, epoch: number, lsn?: string): Partial<Envelope> => ({
  consistency: { inventory: { side, epoch, lsn } satisfies ConsistencyToken },
});

describe('By the table of stages', () => {
  const processes = {
    monolith: { side: 'monolith' },
    service: { side: 'service', context: 'inventory' },
    other: { side: 'service', context: 'orders' },
  } as const;
  // stage and owner: then, per process, where a query, a command, an event and a job go.
  it.each<[ContextRouting['stage'], Side, Record<keyof typeof processes, string>]>([
    [
      'monolith',
      'monolith',
      {
        monolith: 'here here here here',
        service: 'here monolith monolith hold',
        other: 'monolith monolith monolith hold',
      },
    ],
    [
      'replicate',
      'monolith',
      {
        monolith: 'here here here here',
        service: 'here monolith monolith hold',
        other: 'monolith monolith monolith hold',
      },
    ],
    [
      'shadow',
      'monolith',
      {
        monolith: 'here here here here',
        service: 'here monolith monolith hold',
        other: 'monolith monolith monolith hold',
      },
    ],
    [
      'canary',
      'monolith',
      {
        monolith: 'here here here here',
        service: 'here monolith monolith hold',
        other: 'monolith monolith monolith hold',
      },
    ],
    [
      'live',
      'service',
      {
        monolith: 'service service service hold',
        service: 'here here here here',
        other: 'service service service hold',
      },
    ],
  ])('%s, owned by the %s', (stage, owner, expected) => {
    for (const [name, process] of Object.entries(processes)) {
      const { where } = follow({ ...process, routing: routing({ stage, owner }) });
      const told = (['query', 'command', 'event', 'job'] as const).map((kind) => where(kind)).join(' ');
      expect(`${name}: ${told}`).toBe(`${name}: ${expected[name as keyof typeof processes]}`);
    }
  });

  it('without a word from anybody a monolith has everything, a service itself, and the monolith the rest', () => {
    expect(follow({ side: 'monolith' }).where('command')).toBe('here');
    expect(follow({ side: 'monolith' }).where('job')).toBe('here');
    expect(follow({ side: 'service', context: 'inventory' }).where('command')).toBe('here');
    expect(follow({ side: 'service', context: 'orders' }).where('command')).toBe('monolith');
    expect(follow({ side: 'service', context: 'orders' }).where('query')).toBe('monolith');
  });
});

describe('A read in canary', () => {
  const canary = (isService: boolean) =>
    follow({ side: 'monolith', canary: () => isService, routing: routing({ stage: 'canary', epoch: 3 }) });

  it('goes as the edge has decided, whatever the flag says', () => {
    expect(canary(false).where('query', { placement: { inventory: 'service' } })).toBe('service');
    expect(canary(true).where('query', { placement: { inventory: 'monolith' }, actor: user() })).toBe('here');
  });

  it('goes by the flag where there was no edge, and to the owner for who is nobody', () => {
    expect(canary(true).where('query', { actor: user() })).toBe('service');
    expect(canary(true).where('query')).toBe('here');
    expect(canary(true).where('query', { actor: { kind: 'system', name: 'job' } })).toBe('here');
    expect(canary(false).where('query', { actor: user() })).toBe('here');
  });

  it('has the owner to fall back on', () => {
    const envelope = { actor: user() } as Envelope;
    expect(canary(true).placement.decide('inventory', 'query', envelope)).toMatchObject({
      at: 'remote',
      otherwise: { at: 'local', side: 'monolith' },
    });
  });

  it('sees what its caller has written', () => {
    const { where } = canary(true);
    const actor = user();
    // Written while nobody followed the log: only the owner is sure to have it.
    expect(where('query', { actor, ...wrote('monolith', 3) })).toBe('here');
    // The service itself looks whether it has got so far.
    expect(where('query', { actor, ...wrote('monolith', 3, '0/16B3748') })).toBe('service');
    expect(where('query', { actor, ...wrote('monolith', 2) })).toBe('service');
    // The caller has met an owner that we have not heard of yet.
    expect(where('query', { actor, ...wrote('service', 4) })).toBe('service');
    expect(where('query', { ...wrote('service', 4) })).toBe('service');
    expect(where('query', { actor, ...wrote('monolith', 5) })).toBe('here');
  });

  it('is not sent to a service that is not there', () => {
    const { where } = follow({
      side: 'monolith',
      canary: () => true,
      routing: routing({ stage: 'canary', service: null }),
    });
    expect(where('query', { actor: user() })).toBe('here');
    expect(where('query', { placement: { inventory: 'service' } })).toBe('here');
  });
});

it('a stale decision of the edge sends no read past the stage, but a comparison reads where it was sent', () => {
  const placement = { inventory: 'service' as const };
  expect(follow({ side: 'monolith', routing: routing({ stage: 'shadow' }) }).where('query', { placement })).toBe(
    'here',
  );
  const live = routing({ stage: 'live', owner: 'service', epoch: 2 });
  const mirrored = { placement: { inventory: 'monolith' as const } };
  expect(follow({ side: 'monolith', routing: live }).where('query', mirrored)).toBe('here');
  expect(follow({ side: 'service', context: 'orders', routing: live }).where('query', mirrored)).toBe('service');
});

describe('While the owner changes', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it('commands and events are held, jobs rest, reads go on; the news lets everything go', async () => {
    // No time passes: it is the news that wakes.
    vi.useFakeTimers();
    const { placement, where, tell } = follow({ side: 'monolith', routing: routing({ stage: 'canary' }) });
    tell({ holding: true });
    expect([where('command'), where('event'), where('job'), where('query')]).toEqual(['hold', 'hold', 'hold', 'here']);
    const changed = placement.changed('inventory', 2_000);
    tell({ holding: false, owner: 'service', epoch: 2, stage: 'live' });
    await changed;
    expect([where('command'), where('event'), where('job'), where('query')]).toEqual([
      'service',
      'service',
      'hold',
      'service',
    ]);
  });

  it('a hold that nobody ends is not believed for ever: then the database is asked', async () => {
    vi.useFakeTimers();
    const { placement, where, tell } = follow({ side: 'monolith', routing: routing() });
    tell({ holding: true });
    expect(where('command')).toBe('hold');
    const changed = placement.changed('inventory', 2_000);
    await vi.advanceTimersToNextTimerAsync();
    await changed;
    expect(where('command')).toBe('here');
  });

  it('who is refused without news tries the other side, and comes back from it', async () => {
    const { placement, where, tell } = follow({ side: 'monolith', routing: routing() });
    const refused = async (side: Side) => {
      placement.moved('inventory', side);
      await Promise.all([placement.changed('inventory', 2_000), placement.changed('inventory', 2_000)]);
    };
    await refused('monolith');
    expect(where('command')).toBe('service');
    expect(where('event')).toBe('service');
    expect(placement.decide('inventory', 'command')).not.toHaveProperty('epoch', expect.anything());
    await refused('service');
    expect(where('command')).toBe('here');
    tell({ owner: 'service', epoch: 2, stage: 'live' });
    expect(where('command')).toBe('service');
  });

  it('a wait that was not refused changes nothing', async () => {
    const { placement, where } = follow({ side: 'monolith', routing: routing() });
    await placement.changed('inventory', 2_000);
    expect(where('command')).toBe('here');
  });

  it('a process whose own fence has opened knows it before anybody tells', () => {
    const { placement, where, tell } = follow({
      side: 'service',
      context: 'inventory',
      routing: routing({ epoch: 4 }),
    });
    const heard: string[] = [];
    placement.onChange((context) => heard.push(context));
    placement.took('inventory', 4);
    expect([where('command'), where('job')]).toEqual(['monolith', 'hold']);
    placement.took('inventory', 5);
    expect([where('command'), where('job')]).toEqual(['here', 'here']);
    expect(heard).toEqual(['inventory']);
    // And back again.
    tell({ owner: 'monolith', epoch: 6 });
    expect([where('command'), where('job')]).toEqual(['monolith', 'hold']);
  });

  it('who only hears of other contexts is not woken', async () => {
    const { placement, tell } = follow({ side: 'monolith', routing: routing() });
    const heard: string[] = [];
    placement.onChange((context) => heard.push(context));
    tell({});
    expect(heard).toEqual([]);
    tell({ stage: 'replicate' });
    expect(heard).toEqual(['inventory']);
  });
});

it('the log position is asked for only while the log is followed', () => {
  const followed = (['monolith', 'replicate', 'shadow', 'canary', 'live'] as const).filter((stage) =>
    follow({ side: 'monolith', routing: routing({ stage }) }).placement.followed('inventory'),
  );
  expect(followed).toEqual(['replicate', 'shadow', 'canary']);
});
