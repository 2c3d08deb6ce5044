import type { ConsistencyToken, Side } from '@banyan/kernel';
import type { Database } from '@banyan/platform/database';
import type { Envelope, EventEnvelope, GivenBack, Receipt, Reply } from './envelope.js';

/** A way to reach a context that runs elsewhere. Messages are JSON; deadlines and traces travel in them. */
export interface RemoteTransport {
  readonly name: string;
  /**
   * Never rejects, and answers by `until` (ms since the epoch; the envelope's deadline by default). A failure with
   * CONTEXT_UNREACHABLE means that the message was never run: it may be sent again.
   */
  call(envelope: Envelope, until?: number): Promise<Reply>;
  /** Hands events to the context's inbox and waits for its receipts. Rejects with a DomainError when there are none. */
  deliver(context: string, events: EventEnvelope[]): Promise<Receipt[]>;
  /** Hands events back to the outbox of the context that has published them. Rejects with a DomainError. */
  giveBack(context: string, back: GivenBack[]): Promise<void>;
}

/** Where one process answers the buses of others. */
export interface Address {
  host: string;
  port: number;
}

/** Where one side of a context answers; transports that know names ignore the addresses. */
export interface Whereabouts {
  context: string;
  side: Side;
  /** One for each instance: any of them will do. Never empty. */
  addresses: readonly Address[];
}

/** The ways to the sides of all contexts, over one kind of transport. */
export interface Peers {
  to(where: Whereabouts): RemoteTransport;
  close(): void | Promise<void>;
}

/** The way into a process, as transports see it: what came off the wire goes in, an answer comes out. */
export interface WayIn {
  /** Never rejects. */
  call(message: unknown): Promise<Reply>;
  /** Rejects with a DomainError when there are no receipts. */
  deliver(context: string, message: unknown, traceparent?: string): Promise<Receipt[]>;
  /** Rejects with a DomainError when the outbox has not taken them. */
  giveBack(context: string, message: unknown): Promise<void>;
}

export type Kind = 'query' | 'command' | 'event' | 'job';

export type Decision =
  | { at: 'local'; side?: Side; epoch?: number }
  | {
      at: 'remote';
      via: RemoteTransport;
      side?: Side;
      epoch?: number;
      /** Who reads it instead when that side is behind, gone, or silent: the owner. */
      otherwise?: Decision;
    }
  /** The owner is changing: ask again after `changed`. */
  | { at: 'hold' };

/**
 * Decides, per call, event or job, which side serves a context. It may be wrong for a moment: the fence in the database
 * is not, and what it refuses has not run. Only the first two are needed where nothing ever moves.
 */
export interface Placement {
  decide(context: string, kind: Kind, envelope?: Envelope): Decision;
  /** Resolves when the decision for a context may have changed, or after `withinMs`. */
  changed(context: string, withinMs: number): Promise<void>;
  /** The fence of `side` has just refused a message for the context. */
  moved?(context: string, refusedBy: Side): void;
  /** A transaction in this process has just found its side open, at an epoch that it had not seen before. */
  took?(context: string, epoch: number): void;
  /** Does somebody copy the context's log just now? Only then a write costs its log position. */
  followed?(context: string): boolean;
  /** Does this side have what the token speaks of? May wait for it a little. */
  caughtUp?(db: Database, token: ConsistencyToken): Promise<boolean>;
  /** Calls `listener` when a context may have changed hands. */
  onChange?(listener: (context: string) => void): void;
  /** Told once, at the start, how messages get into this process: for transports that need to know. */
  connect?(here: WayIn): void;
}

const local: Decision = { at: 'local' };

/** Every context in this process: the monolith before anything has left it. */
export const allLocal: Placement = {
  decide: () => local,
  changed: (_context, withinMs) => new Promise((resolve) => setTimeout(resolve, Math.min(withinMs, 50)).unref()),
};
