import type { Database } from '@banyan/platform/database';

/** A holder who says nothing for this long has lost its turn: the server ends its session, ms. */
const SILENCE = 15_000;
const SIGN_OF_LIFE = 4_000;

/* The transaction does nothing else: without a snapshot or an id of its own it keeps no row from being vacuumed. */
const TRY = `select set_config('idle_in_transaction_session_timeout', '${SILENCE}', true),
  pg_try_advisory_xact_lock(hashtextextended('banyan.events.' || current_schema(), 0)) as mine`;

/**
 * Tries to become the one process that takes a context's events from its stream. Two that take in turns from one stream
 * get in each other's way: what one has is the predecessor of what the other one has. It is a courtesy and no fence: an
 * event happens once because of the inbox. Resolves with what gives the turn back, or undefined when another process has
 * it; `lost` is called when it is taken away.
 */
export function takeTurn(db: Database, lost: () => void): Promise<(() => Promise<void>) | undefined> {
  return new Promise((resolve, reject) => {
    let release = () => {};
    const released = new Promise<true>((done) => (release = () => done(true)));
    const held = db.transaction(undefined, async (tx) => {
      const { rows } = await tx.query<{ mine: boolean }>(TRY);
      if (!rows[0]!.mine) return resolve(undefined);
      resolve(async () => {
        release();
        await held.catch(() => {});
      });
      for (let over = false; !over;) {
        let timer: NodeJS.Timeout | undefined;
        const sign = new Promise<false>((done) => (timer = setTimeout(() => done(false), SIGN_OF_LIFE)));
        over = await Promise.race([released, sign]);
        clearTimeout(timer);
        if (!over) await tx.query('select 1');
      }
    });
    held.catch((error: unknown) => {
      reject(error as Error);
      lost();
    });
  });
}
