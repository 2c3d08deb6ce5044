import { DomainError } from '@banyan/kernel';
import type { Bus } from './bus.js';
import { handleRemote } from './endpoint.js';
import { Envelope, EventEnvelope, type Receipt, type Reply } from './envelope.js';
import type { Inbox } from './inbox.js';
import type { Decision, Placement, RemoteTransport } from './placement.js';
import { outOfScope } from './scope.js';

const overTheWire = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

/**
 * A remote transport that ends in the same process: everything becomes JSON and back, and nothing of the caller's
 * surroundings comes along. What works through it does not depend on being local.
 */
export class Loopback implements RemoteTransport {
  readonly name = 'loopback';

  constructor(
    private readonly bus: Bus,
    private readonly inboxes: ReadonlyMap<string, Inbox>,
  ) {}

  call(envelope: Envelope): Promise<Reply> {
    return outOfScope(async () => {
      const received = Envelope.parse(overTheWire(envelope));
      const endpoint = this.bus.endpoint(received.context);
      if (!endpoint) throw new DomainError('CONTEXT_UNKNOWN', 'unavailable', `Nothing serves ${received.context}`);
      return overTheWire(await handleRemote(endpoint, received));
    });
  }

  deliver(context: string, events: EventEnvelope[]): Promise<Receipt[]> {
    return outOfScope(async () => {
      const received = overTheWire(events).map((event) => EventEnvelope.parse(event));
      const inbox = this.inboxes.get(context);
      if (!inbox) throw new DomainError('CONTEXT_UNKNOWN', 'unavailable', `Nothing receives events for ${context}`);
      return overTheWire(await inbox.receive(received));
    });
  }
}

/** Calls and events of every context take the remote way; jobs stay. */
export class LoopbackPlacement implements Placement {
  #remote: Decision | undefined;

  connect(via: RemoteTransport): void {
    this.#remote = { at: 'remote', via };
  }

  decide(_context: string, kind: 'query' | 'command' | 'event' | 'job'): Decision {
    return kind === 'job' || !this.#remote ? { at: 'local' } : this.#remote;
  }

  async changed(): Promise<void> {}
}
