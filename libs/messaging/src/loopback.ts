import type { EventEnvelope, Envelope, GivenBack, Receipt, Reply } from './envelope.js';
import { within } from './failures.js';
import { type Decision, type Kind, type Placement, type RemoteTransport, type WayIn, allLocal } from './placement.js';

const overTheWire = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

/**
 * A remote transport that ends in the same process: everything becomes JSON and back, and nothing of the caller's
 * surroundings comes along. What works through it does not depend on being local.
 */
export class Loopback implements RemoteTransport {
  readonly name = 'loopback';

  constructor(private readonly here: WayIn) {}

  call(envelope: Envelope, until = envelope.deadline): Promise<Reply> {
    return within(until, envelope, this.here.call(overTheWire(envelope)).then(overTheWire));
  }

  async deliver(context: string, events: EventEnvelope[]): Promise<Receipt[]> {
    return overTheWire(await this.here.deliver(context, overTheWire(events)));
  }

  giveBack(context: string, back: GivenBack[]): Promise<void> {
    return this.here.giveBack(context, overTheWire(back));
  }
}

/** Calls and events of every context take the remote way; jobs stay. */
export class LoopbackPlacement implements Placement {
  #remote: Decision | undefined;

  connect(here: WayIn): void {
    this.#remote = { at: 'remote', via: new Loopback(here) };
  }

  decide(_context: string, kind: Kind): Decision {
    return kind === 'job' || !this.#remote ? { at: 'local' } : this.#remote;
  }

  readonly changed = allLocal.changed;
}
