import { setTimeout as sleep } from 'node:timers/promises';
import { figure, quantile } from '../support/report.mjs';

/** Longest way from one end to the other, ms. */
export const LEG_LIMIT_MS = 120_000;
const PAUSE_LIMIT_MS = 150;

/**
 * Takes a context out and puts it back, `times` times, and serves for `dwellMs` at each end. With `force` it does not
 * wait for the evidence that the gates ask for; the hand-overs are the same.
 */
export async function cycles(session, context, { times, dwellMs, force = false }) {
  const { say } = session;
  await session.watch(context);
  const legs = [];
  for (let n = 1; n <= times; n++) {
    const out = await session.move(context, 'live', { limitMs: LEG_LIMIT_MS, ...forced(force) });
    await sleep(dwellMs);
    const back = await session.move(context, 'monolith', { limitMs: LEG_LIMIT_MS });
    await sleep(dwellMs);
    legs.push(out, back);
    const fresh = (await session.handovers()).filter((handover) => handover.context === context).slice(-2);
    say(
      `${context} ${n} of ${times}: out in ${seconds(out)}, back in ${seconds(back)}, ` +
        `writes paused ${fresh.map((handover) => Math.round(pauseOf(handover))).join(' and ')} ms`,
    );
  }
  return legs;
}

/** The gates ask for evidence of ten seconds and more at each stage; where only the hand-over counts they are skipped. */
export const forced = (force = true) => (force ? { force, reason: 'the hand-over is what is tested' } : {});

const seconds = (ms) => `${(ms / 1_000).toFixed(1)} s`;

/** From the owner that closed to the one that opened: by their rows, or as it was seen when that is longer, ms. */
export function pauseOf({ openedAt, closedAt, seenMs = 0 }) {
  return Math.max(openedAt - closedAt, seenMs);
}

/** How long writes paused at the hand-overs that no fault fell into: too long is a finding, and so is that there were none. */
export function judgePauses(session, { handovers, report }) {
  const calm = pauses(
    handovers.filter(({ openedAt }) => !session.isFaulty(openedAt)),
    report.commands,
  );
  const { p99 } = calm.rows;
  if (calm.count === 0) session.findings.wrong('pause', 'there was no hand-over without faults');
  else if (p99 >= PAUSE_LIMIT_MS)
    session.findings.wrong('pause', `p99 of ${calm.count} hand-overs is ${figure(p99)} ms`);
  return calm;
}

/** The pauses of hand-overs: in the database, and as the commands of the context felt them. */
export function pauses(handovers, commands) {
  const moved = handovers.filter(({ from, to }) => from !== to);
  const rows = moved.map(pauseOf);
  const felt = moved.map(({ context, closedAt, openedAt }) => {
    const met = commands.filter(([of, due, done]) => of === context && due <= openedAt && done >= closedAt);
    return met.length > 0 ? Math.max(...met.map(([, due, done]) => done - due)) : NaN;
  });
  const of = (values) => ({ p50: quantile(values, 0.5), p99: quantile(values, 0.99), max: quantile(values, 1) });
  return { count: moved.length, rows: of(rows), felt: of(felt), met: felt.filter(Number.isFinite).length };
}
