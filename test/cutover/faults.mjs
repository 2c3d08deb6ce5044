import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { LEG_LIMIT_MS, forced } from './cycles.mjs';
import { until } from './stack.mjs';

/**
 * The steps at which a process kills itself, and the ways on which it comes to them. `held` are those that are reached
 * only when a hand-over has to be taken back: the side that was to open is not reached in time.
 */
export const FAIL_POINTS = [
  { name: 'service-before-ready', ways: ['live'] },
  { name: 'bridge-after-chunk', ways: ['live'] },
  { name: 'bridge-after-apply', ways: ['live', 'monolith'] },
  { name: 'bridge-before-mark', ways: ['live', 'monolith'] },
  { name: 'stage-before-write', ways: ['live', 'monolith'] },
  { name: 'stage-after-write', ways: ['live', 'monolith'] },
  { name: 'handover-before-hold', ways: ['live', 'monolith'] },
  { name: 'handover-before-close', ways: ['live', 'monolith'] },
  { name: 'handover-after-close', ways: ['live', 'monolith'] },
  { name: 'bridge-before-open', ways: ['live', 'monolith'] },
  { name: 'bridge-after-open', ways: ['live', 'monolith'] },
  { name: 'bridge-before-turn', ways: ['live', 'monolith'] },
  { name: 'handover-before-release', ways: ['live', 'monolith'] },
  { name: 'handover-after-bar', ways: ['live', 'monolith'], held: true },
  { name: 'handover-after-reopen', ways: ['live', 'monolith'], held: true },
];
/** The ones of a short run: three on the way out, three on the way back. */
export const FEW = {
  live: ['bridge-after-chunk', 'handover-after-close', 'bridge-after-open'],
  monolith: ['stage-before-write', 'handover-before-close', 'bridge-before-open'],
};

/** How long after the context has arrived the last step may be reached, ms. */
const REACHED_LIMIT_MS = 30_000;
/** How long after a kill `banyan up` may tell of it, ms. */
const TOLD_LIMIT_MS = 20_000;

/** One way at a time, with one fail point each; answers how many were reached. */
export async function everyFailPoint(session, context) {
  let reached = 0;
  await session.watch(context);
  for (const way of ['live', 'monolith'])
    for (const point of FAIL_POINTS.filter(({ ways }) => ways.includes(way))) {
      reached += await passing(session, context, way, [point.name], point.held);
      if (point !== FAIL_POINTS.findLast(({ ways }) => ways.includes(way)))
        await session.move(context, way === 'live' ? 'monolith' : 'live', {
          limitMs: LEG_LIMIT_MS,
          ...forced(),
        });
    }
  return reached;
}

/** A cycle with some of them at once. */
export async function fewFailPoints(session, context) {
  let reached = 0;
  await session.watch(context);
  for (const way of ['live', 'monolith']) reached += await passing(session, context, way, FEW[way]);
  return reached;
}

async function passing(session, context, way, names, held = false) {
  const { findings, say, stack } = session;
  // What came back a moment ago leaves without being copied again, and then there is no chunk.
  if (names.includes('bridge-after-chunk'))
    await until(async () => (await session.slots()).length === 0, LEG_LIMIT_MS, 100);
  const from = performance.now();
  const ends = stack.ends;
  const armed = () => names.filter((name) => stack.isArmed(name));
  for (const name of held ? ['bridge-before-open', ...names] : names) stack.arm(name);
  await session.amidFaults(async () => {
    const holding = held ? keepBridgeAway(session, context, names[0]) : undefined;
    try {
      await session.move(context, way, { limitMs: LEG_LIMIT_MS, ...forced() });
    } catch (error) {
      findings.wrong('stages', `with ${names.join(', ')} on the way to ${way}: ${error.message}`);
    }
    await holding;
    // The bridge may turn round after the context has arrived; and what is told later would have ended by itself.
    await until(() => armed().length === 0, REACHED_LIMIT_MS, 20);
    await until(() => stack.ends - ends >= names.length - armed().length, TOLD_LIMIT_MS, 20);
  });
  const missed = armed();
  for (const name of missed) {
    stack.disarm(name);
    findings.wrong('faults', `${name} was never reached on the way to ${way}`);
  }
  const reached = names.length - missed.length;
  say(
    `killed at ${names.join(', ')} on the way to ${way}: there in ${((performance.now() - from) / 1_000).toFixed(1)} s`,
  );
  return reached;
}

/** The bridge dies before it opens the other side, and its successor is stopped until the hand-over was taken back. */
async function keepBridgeAway({ stack, findings }, context, name) {
  // Looked up each time: on the way out there is no bridge at first, and the dead one stays in the list for a moment.
  let first;
  const isDead = () => {
    first = stack.pidOf('bridge', context) ?? first;
    return !stack.isArmed('bridge-before-open');
  };
  const died = await until(isDead, LEG_LIMIT_MS, 5);
  const next =
    died &&
    (await until(
      () => {
        const pid = stack.pidOf('bridge', context);
        return pid !== first && pid;
      },
      30_000,
      2,
    ));
  if (!next) return findings.wrong('faults', 'no bridge came after the one that was killed');
  process.kill(next, 'SIGSTOP');
  await until(() => !stack.isArmed(name), 30_000, 20);
  try {
    process.kill(next, 'SIGCONT');
  } catch {
    // It was replaced, which is as good.
  }
}

const VICTIMS = ['bridge', 'service', 'control-plane', 'proxy'];

/** Cycles of contexts, taken in turn, while processes are killed at random instants; answers how many were. */
export async function randomKills(session, contexts, { kills, everyMs }) {
  const { control, findings, random, say, stack } = session;
  const killed = Object.fromEntries(VICTIMS.map((role) => [role, 0]));
  let count = 0;
  let context = contexts[0];
  await session.amidFaults(async () => {
    const killing = (async () => {
      while (count < kills) {
        await sleep(random.between(0.2 * everyMs, 1.8 * everyMs));
        const role = random.one(VICTIMS);
        const its = ['bridge', 'service'].includes(role) ? context : undefined;
        session.struck(role);
        if (stack.signal('SIGKILL', role, its) === undefined) continue;
        killed[role]++;
        count++;
        say(`killed ${its ? `the ${role} of ${its}` : `the ${role}`} (${count} of ${kills})`);
      }
    })();
    let over = false;
    void killing.finally(() => (over = true));
    for (let turn = 0; !over; turn++) {
      context = contexts[turn % contexts.length];
      await session.watch(context);
      for (const stage of ['live', 'monolith'])
        try {
          await control.move(context, stage, { limitMs: LEG_LIMIT_MS, ...forced() });
          say(`${context} came to ${stage} in spite of it`);
        } catch (error) {
          findings.wrong('stages', error.message);
        }
    }
    await killing;
  });
  return { count, killed };
}

/** A hand-over that takes 1.5 s is called off before it was looked at: on a busy machine that may be most of them. */
const TRIES = 10;

/**
 * A cycle on whose way out the copy cannot keep up: it is held when the monolith closes, and for half a second more. Whoever
 * opened the service before everything is there would be seen here, and by who watches the owners.
 */
export async function slowCopy(session, context) {
  const { control, findings, say, stack, verdict } = session;
  const toCanary = () => control.move(context, 'canary', { percent: 50, limitMs: LEG_LIMIT_MS, ...forced() });
  await session.watch(context);
  await toCanary();
  await session.amidFaults(async () => {
    const monolith = await verdict.pool.connect();
    const service = new pg.Client({ connectionString: stack.adminUrl('service', context) });
    await service.connect();
    try {
      let held = false;
      for (let tries = TRIES; !held && tries > 0; tries--) {
        await toCanary();
        await control.target(context, 'live', forced());
        held = await closesOnHeldCopy(context, { monolith, service, findings });
      }
      if (!held) findings.wrong('faults', `the monolith never closed ${context} while its copy was held up`);
    } finally {
      // Never with a transaction that may be open.
      monolith.release(true);
      await service.end();
    }
    await session.move(context, 'live', { limitMs: LEG_LIMIT_MS, ...forced() });
  });
  say(`${context} went out while its copy was held up`);
  await session.move(context, 'monolith', { limitMs: LEG_LIMIT_MS, ...forced() });
}

/** Whether the monolith was closed while the copy was held up, and still was half a second later: it may call it off. */
async function closesOnHeldCopy(context, { monolith, service, findings }) {
  const isOpen = async (side) => (await side.query(`select open from ${context}.banyan_owner`)).rows[0].open;
  const closing = () =>
    monolith.query(
      `select from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and not granted
       and database = (select oid from pg_database where datname = current_database())`,
    );
  // Whoever closes waits for the commands that run, and for this as for one of them.
  await monolith.query(`begin; select from ${context}.banyan_settled()`);
  await until(async () => (await closing()).rowCount > 0, 15_000, 5);
  await service.query('begin; lock table banyan_replication.mark in exclusive mode');
  await monolith.query('commit');
  const closed = await until(async () => !(await isOpen(monolith)), 500, 5);
  await sleep(500);
  if (await isOpen(service)) findings.wrong('owner', `${context} was opened while its copy was held up`);
  const held = closed && !(await isOpen(monolith));
  await service.query('commit');
  return held;
}

/** Postgres, with everybody's data, is killed in the middle of a way out. */
export async function postgresKilled(session, context) {
  const { control, findings, random, say, stack } = session;
  await session.watch(context);
  await session.amidFaults(async () => {
    await control.target(context, 'live');
    await sleep(random.between(500, 5_000));
    stack.signal('SIGKILL', 'postgres');
    say('killed Postgres');
    for (const stage of ['live', 'monolith'])
      await control
        .move(context, stage, { limitMs: LEG_LIMIT_MS, ...forced() })
        .catch((error) => findings.wrong('stages', `after Postgres was killed: ${error.message}`));
  });
}

/** In canary the service neither answers nor refuses: its reads are served by the monolith, and nobody sees an error. */
export async function hungService(session, context, { forMs = 6_000 } = {}) {
  const { control, findings, say, stack } = session;
  await session.watch(context);
  await control.move(context, 'canary', { percent: 100, limitMs: LEG_LIMIT_MS, ...forced() });
  await sleep(1_000);
  const before = session.troubles.length;
  const pid = stack.signal('SIGSTOP', 'service', context);
  const waits = [];
  try {
    for (const end = performance.now() + forMs; performance.now() < end; await sleep(50)) {
      const from = performance.now();
      const { status, servedBy } = await session.readAsStaff();
      waits.push(performance.now() - from);
      if (status !== 200 || servedBy !== 'monolith')
        findings.wrong(
          'faults',
          `while the service of ${context} hung, a read was answered ${status} by the ${servedBy}`,
        );
    }
  } finally {
    if (pid !== undefined) process.kill(pid, 'SIGCONT');
  }
  await sleep(1_000);
  const longest = Math.round(Math.max(...waits));
  say(
    `the service of ${context} hung for ${forMs / 1_000} s: ${session.troubles.length - before} requests failed, ` +
      `${waits.length} reads meant for it were served by the monolith, after ${longest} ms at most`,
  );
  await control.move(context, 'monolith', { limitMs: LEG_LIMIT_MS, ...forced() });
  return { reads: waits.length, longest };
}
