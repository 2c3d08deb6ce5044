import { Logger } from '@nestjs/common';
import type { Database } from '@banyan/platform/database';
import { KEY_LIFETIME } from './idempotency.js';
import { INBOX_RETENTION, idFloor } from './inbox.js';

const HOUR = 60 * 60 * 1000;

/** Delivered events stay this long, so that everything can be published again; what a stream has that nobody has taken, for good. */
const OUTBOX_RETENTION = 30 * 24 * HOUR;

/* A day more than the inbox counts on: a row is never missed by the event that follows it. */
const INBOX_KEPT = INBOX_RETENTION + 24 * HOUR;

/* Ids are UUIDv7, so the primary key finds what is old; small batches leave no long locks. */
const sweeps: { what: string; text: string; before: (now: number) => unknown }[] = [
  {
    what: 'outbox',
    text: `delete from outbox where (event_id, subscriber) in
      (select event_id, subscriber from outbox o where event_id < $1 and state = 'done' and not exists
        (select from outbox_stream s where s.subscriber = o.subscriber and s.incarnation = o.via and s.taken < o.seq)
      order by event_id limit 5000)`,
    before: (now) => idFloor(now - OUTBOX_RETENTION),
  },
  {
    what: 'inbox',
    text: `delete from inbox where event_id in (select event_id from inbox where event_id < $1 order by event_id limit 5000)`,
    before: (now) => idFloor(now - INBOX_KEPT),
  },
  {
    what: 'idempotency keys',
    text: `delete from idempotency_key where ctid = any(array(select ctid from idempotency_key where created_at < $1 limit 5000))`,
    before: (now) => new Date(now - KEY_LIFETIME),
  },
];

/** Deletes what is past its time, now. Answers how many rows went. */
export async function tidy(db: Database, now = Date.now()): Promise<number> {
  let gone = 0;
  for (const { text, before } of sweeps) {
    for (;;) {
      const deleted = (await db.query(text, [before(now)])).rowCount ?? 0;
      gone += deleted;
      if (deleted < 5000) break;
    }
  }
  return gone;
}

/** Tidies every hour. Answers how to stop it. */
export function keepTidy(databases: readonly Database[]): () => void {
  const log = new Logger('housekeeping');
  const timer = setInterval(() => {
    for (const db of databases)
      tidy(db).catch((error: unknown) => log.warn({ msg: `${db.context} not tidied`, err: error }));
  }, HOUR);
  timer.unref();
  return () => clearInterval(timer);
}
