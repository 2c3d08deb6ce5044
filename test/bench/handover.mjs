import { setTimeout as sleep } from 'node:timers/promises';
import { streamName } from '@banyan/extraction/protocol';
import pg from 'pg';
import { pauses } from '../cutover/cycles.mjs';
import { Session } from '../cutover/session.mjs';
import { until } from '../cutover/stack.mjs';
import { figure, table } from '../support/report.mjs';

const CONTEXT = 'inventory';
const RATE = 200;
/** How often somebody who has to wait for a copy asks how far it is: what guides and scripts for this do. */
const POLL_MS = 100;

/** How long a context takes no writes while it changes owner, at 200 requests a second. */
export async function benchHandover({ quick }) {
  const times = quick ? 3 : 25;
  const session = new Session({ seed: 1, rate: RATE, buyers: 60, say: (text) => console.error(text) });
  const naive = [];
  try {
    await session.start();
    await session.begin();
    await session.watch(CONTEXT);
    await session.control.move(CONTEXT, 'canary', { percent: 0 });
    for (let n = 0; n < times; n++) {
      await session.control.move(CONTEXT, 'live');
      await sleep(1_000);
      await session.control.move(CONTEXT, 'canary', { percent: 0 });
      await sleep(1_000);
      if (n % 2 === 0) naive.push(await stopAndPoll(session));
      await sleep(1_000);
    }
    await session.control.move(CONTEXT, 'monolith');
    const { report: load, handovers } = await session.finish();
    return report(session, { handovers, ...load, naive });
  } finally {
    await session.stop();
  }
}

/**
 * What one does without the hand-over in the log: stop the writes, ask again and again until the copy has caught up, let
 * the other side begin. Here the same bridge carries the copy, and the old owner goes on at the end, so that the next
 * round finds everything as it was. What it takes to switch the proxy is not even counted.
 */
async function stopAndPoll({ stack }) {
  const admin = new pg.Client({ connectionString: stack.adminUrl('monolith') });
  await admin.connect();
  // The control plane would take the closed context for a hand-over of its own that was cut short.
  stack.signal('SIGSTOP', 'control-plane');
  try {
    await admin.query(`begin; select pg_advisory_xact_lock(hashtextextended('banyan.owner.${CONTEXT}', 0))`);
    await admin.query(
      `update ${CONTEXT}.banyan_owner set open = false, epoch = epoch + 1, changed_at = clock_timestamp()`,
    );
    await admin.query('commit');
    const closedAt = clock();
    const { rows } = await admin.query('select pg_current_wal_insert_lsn() as lsn');
    const isThere = async () => {
      const slot = await admin.query(
        'select from pg_replication_slots where slot_name = $1 and confirmed_flush_lsn >= $2',
        [streamName(CONTEXT, 'monolith', stack.adminUrl('monolith')), rows[0].lsn],
      );
      return slot.rowCount === 1;
    };
    await until(isThere, 30_000, POLL_MS);
    await admin.query(
      `update ${CONTEXT}.banyan_owner set open = true, epoch = epoch + 1, changed_at = clock_timestamp()`,
    );
    return { context: CONTEXT, from: 'monolith', to: 'service', closedAt, openedAt: clock() };
  } finally {
    stack.signal('SIGCONT', 'control-plane');
    await admin.end();
  }
}

const clock = () => performance.timeOrigin + performance.now();

function report(session, { handovers, commands, latencies, naive }) {
  const ours = pauses(handovers, commands);
  const theirs = pauses(naive, commands);
  const row = (name, { count, rows, felt }) => [
    name,
    count,
    ...[rows.p50, rows.p99, rows.max, felt.p50, felt.p99].map((ms) => figure(ms)),
    figure(rows.p50 / ours.rows.p50, 1),
  ];
  const failed = session.troubles.length;
  const broken = session.findings.verdicts.flatMap(({ violations }) => violations);
  return {
    title: `Hand-over of ${CONTEXT}, ${RATE} requests/s`,
    notes: [
      `Pause: from the owner's row that closed to the one that opened. Felt: the longest wait of a command of ${CONTEXT} that met it.`,
      `Requests that failed: ${failed}. Commands at all times: p50 ${figure(latencies.command.p50)} ms, p99 ${figure(latencies.command.p99)} ms.`,
      ...broken.slice(0, 10).map((text) => `BROKEN: ${text}`),
    ],
    tables: [
      table(
        ['way', 'times', 'pause p50 ms', 'p99', 'max', 'felt p50 ms', 'p99', 'it / ours'],
        [row('hand-over in the log', ours), row(`stop, poll every ${POLL_MS} ms, open`, theirs)],
      ),
    ],
  };
}
