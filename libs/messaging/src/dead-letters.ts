import type { Database } from '@banyan/platform/database';

export interface DeadLetter {
  context: string;
  eventId: string;
  subscriber: string;
  type: string;
  aggregate: string;
  attempts: number;
  error: string | null;
  occurredAt: string;
}

/** Parked deliveries of one context, oldest first; `limit` at most. The event's data is not shown: it may be personal. */
export async function deadLetters(db: Database, limit = 100): Promise<DeadLetter[]> {
  const { rows } = await db.query<{
    event_id: string;
    subscriber: string;
    type: string;
    aggregate: string;
    attempts: number;
    last_error: string | null;
    occurred_at: Date;
  }>(
    `select event_id, subscriber, type, aggregate, attempts, last_error, occurred_at
     from outbox where state = 'parked' order by event_id limit $1`,
    [limit],
  );
  return rows.map((row) => ({
    context: db.context,
    eventId: row.event_id,
    subscriber: row.subscriber,
    type: row.type,
    aggregate: row.aggregate,
    attempts: row.attempts,
    error: row.last_error,
    occurredAt: row.occurred_at.toISOString(),
  }));
}

/** Puts parked deliveries back in the queue with their tries reset: all, or those of one event. Answers how many. */
export async function redrive(db: Database, eventId?: string): Promise<number> {
  const { rowCount } = await db.query(
    `update outbox set state = 'pending', attempts = 0, due_at = now() where state = 'parked' and ($1::uuid is null or event_id = $1)`,
    [eventId ?? null],
  );
  // What waited behind them is due again as well. Counted as a try, so that a relay which has just found it waiting, and
  // would let it wait for long, settles nothing.
  await db.query(
    `update outbox o set due_at = now(), attempts = o.attempts + 1 from outbox p
     where o.state = 'pending' and p.event_id = o.previous and p.subscriber = o.subscriber and p.state = 'pending' and o.due_at > now()`,
  );
  return rowCount ?? 0;
}
