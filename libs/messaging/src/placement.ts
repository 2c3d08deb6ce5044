import type { Envelope, EventEnvelope, Receipt, Reply } from './envelope.js';

/** A way to reach a context that runs elsewhere. Messages are JSON; deadlines and traces travel in them. */
export interface RemoteTransport {
  readonly name: string;
  call(envelope: Envelope): Promise<Reply>;
  /** Hands events to the context's inbox and waits for its receipts. */
  deliver(context: string, events: EventEnvelope[]): Promise<Receipt[]>;
}

export type Decision =
  | { at: 'local'; epoch?: number }
  | { at: 'remote'; via: RemoteTransport; epoch?: number }
  /** The owner is changing: ask again after `changed`. */
  | { at: 'hold' };

/** Decides, per call, event or job, which side serves a context. */
export interface Placement {
  decide(context: string, kind: 'query' | 'command' | 'event' | 'job', envelope?: Envelope): Decision;
  /** Resolves when the decision for a context may have changed, or after `withinMs`. */
  changed(context: string, withinMs: number): Promise<void>;
}

const local: Decision = { at: 'local' };

/** Every context in this process: the monolith before anything has left it. */
export const allLocal: Placement = {
  decide: () => local,
  changed: (_context, withinMs) => new Promise((resolve) => setTimeout(resolve, Math.min(withinMs, 50)).unref()),
};
