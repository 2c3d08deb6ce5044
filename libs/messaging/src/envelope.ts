import { Actor, type ConsistencyToken, type DomainError } from '@banyan/kernel';
import { z } from 'zod';

const Side = z.enum(['monolith', 'service']);

/** What travels with every query and command, in process or between processes: JSON only. */
export const Envelope = z.strictObject({
  /** UUIDv7; a re-sent message keeps its id. */
  id: z.uuid(),
  context: z.string(),
  operation: z.string(),
  input: z.unknown(),
  /** The aggregate that a command changes: commands with one key are ordered. */
  key: z.string().optional(),
  /** Scoped to (actor, operation); the same key is the same effect and the same answer, for 24 h. */
  idempotencyKey: z.string().optional(),
  actor: Actor,
  /** The time of the call, ms since the epoch: the only clock a handler may read. */
  at: z.number(),
  /** After this, ms since the epoch, nobody waits for the answer. */
  deadline: z.number(),
  traceparent: z.string().optional(),
  /** The epoch at which the router saw the owner; the fence compares. */
  epoch: z.number().optional(),
  /** Outcome of work done before the transaction. */
  prepared: z.unknown().optional(),
  /** What the edge has decided for the request that this belongs to: which side reads a context. */
  placement: z.record(z.string(), Side).optional(),
  /** What the caller has written, and must see again, per context. */
  consistency: z
    .record(z.string(), z.strictObject({ side: Side, epoch: z.int(), lsn: z.string().optional() }))
    .optional(),
});
export type Envelope = z.output<typeof Envelope>;

/** An event on its way: CloudEvents 1.0 attributes (JSON event format) plus the extensions listed last. */
export const EventEnvelope = z.strictObject({
  specversion: z.literal('1.0'),
  id: z.uuid(),
  source: z.string(),
  type: z.string(),
  subject: z.string(),
  time: z.string(),
  datacontenttype: z.literal('application/json'),
  data: z.unknown(),
  traceparent: z.string().optional(),
  /** Version of the aggregate after this event, without gaps. */
  aggregateversion: z.number(),
  /** The event before this one for the same subscriber and aggregate: how an inbox sees a gap. */
  previous: z.uuid().nullable(),
});
export type EventEnvelope = z.output<typeof EventEnvelope>;

/** A failure as it crosses a process boundary. */
export interface Failure {
  code: string;
  kind: DomainError['kind'];
  message: string;
  data?: DomainError['data'];
}

/** What an endpoint answers. */
export type Reply = { ok: true; output: unknown; meta: ReplyMeta } | { ok: false; error: Failure };

export interface ReplyMeta {
  /** The answer was stored by an earlier call with the same idempotency key. */
  replayed?: boolean;
  /** Of a command: what a later read shows to see what it wrote. */
  token?: ConsistencyToken;
}

/** What an inbox says of one delivered event. */
export type Receipt =
  { id: string; verdict: 'applied' | 'duplicate' | 'gap' } | { id: string; verdict: 'failed'; error: string };

/** An event that a subscriber cannot take from a stream: what its row in the outbox of its publisher is to say. */
export const GivenBack = z.strictObject({
  eventId: z.uuid(),
  subscriber: z.string(),
  /** `pending`: to be delivered by the relay itself, in its order; `parked`: it failed too often. */
  state: z.enum(['pending', 'parked']),
  attempts: z.int(),
  error: z.string(),
});
export type GivenBack = z.output<typeof GivenBack>;
