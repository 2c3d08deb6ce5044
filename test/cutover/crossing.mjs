import { Engines } from '../support/engines.mjs';
import { figure } from '../support/report.mjs';
import { cycles, judgePauses } from './cycles.mjs';
import { everyFailPoint, fewFailPoints, hungService, postgresKilled, randomKills, slowCopy } from './faults.mjs';
import { outages } from './outages.mjs';
import { Session } from './session.mjs';
import { CONTEXTS } from './stack.mjs';

/** Contexts cross over and back under load, with or without faults, on one machine's means or as a fleet on engines. */
export async function perform(given) {
  const { seed, rate, say, endings } = given;
  const engines = given.engines ? await endings.add(() => Engines.start('cutover-engines')) : undefined;
  const session = new Session({ seed, rate, buyers: given.short ? 40 : given.buyers, say, engines });
  await endings.add(() => ({ stop: () => session.stop({ keepLogs: given.logs }) }));
  const { findings } = session;
  await session.start();
  await session.begin();
  let faults = {};
  try {
    if (given.short) faults = await shortened(session, given);
    else if (given.faults) faults = await faulty(session, given);
    else faults = await plain(session, given);
  } catch (error) {
    findings.wrong('stages', error.message);
    await home(session);
  }
  const done = { ...(await session.finish()), faults };
  done.pauses = judgePauses(session, done);
  done.moved = done.handovers.filter(({ from, to }) => from !== to).length;
  return { findings, logs: given.logs, ...figuresOf(session, done) };
}

/** After something went wrong: everybody back to where the books are held, if that is still possible. */
async function home({ control, say }) {
  for (const context of CONTEXTS) {
    const status = await control.status(context);
    if (status?.target === 'monolith' && status.stage === 'monolith') continue;
    await control.move(context, 'monolith').catch((error) => say(error.message));
  }
}

async function plain(session, { contexts, cycles: times, dwell, force, engines, kills, every }) {
  const names = namesIn(contexts);
  const most = names.includes('inventory') ? 'inventory' : names[0];
  for (const context of names)
    await cycles(session, context, { times: context === most ? times : 1, dwellMs: dwell, force });
  return engines ? { outages: await outages(session, [most, ...names], { kills, everyMs: every }) } : {};
}

async function faulty(session, { contexts, kills, every }) {
  const hung = await hungService(session, 'inventory');
  await slowCopy(session, 'inventory');
  const failPoints = await everyFailPoint(session, 'inventory');
  const random = await randomKills(session, ['inventory', ...namesIn(contexts)], { kills, everyMs: every });
  await postgresKilled(session, 'inventory');
  return { failPoints, random, hung };
}

/** What fits into a test run: two cycles, one of them with a slow copy, another context, and six fail points in one more cycle. */
async function shortened(session, { engines }) {
  if (engines) {
    await cycles(session, 'inventory', { times: 1, dwellMs: 500, force: true });
    return { outages: await outages(session, ['orders', 'inventory'], { kills: 8, everyMs: 3_000 }) };
  }
  await cycles(session, 'inventory', { times: 1, dwellMs: 500 });
  await slowCopy(session, 'inventory');
  await cycles(session, 'orders', { times: 1, dwellMs: 500, force: true });
  return { failPoints: await fewFailPoints(session, 'inventory') };
}

function namesIn(list) {
  const names = list.split(',');
  const unknown = names.filter((name) => !CONTEXTS.includes(name));
  if (unknown.length > 0) throw new Error(`There is no context ${unknown}. There are: ${CONTEXTS}`);
  return names;
}

function figuresOf(session, done) {
  const { report, pauses: paused, faults, looks, moved } = done;
  const { read, command } = report.latencies;
  const pair = ({ p50, p99, max }) => `${figure(p50)} / ${figure(p99)} / ${figure(max)}`;
  const served = Object.entries(report.servedBy)
    .filter(([what]) => what.endsWith('service'))
    .reduce((sum, [, count]) => sum + count, 0);
  const figures = {
    requests: report.sent,
    orders: report.orders.length,
    handovers: moved,
    pause: paused,
    latencies: report.latencies,
    servedByService: served,
    sentAgain: session.troubles.length,
    troublesByFault: Object.fromEntries(session.troublesByFault),
    looks,
    outcome: session.outcome,
    ...faults,
  };
  const rows = [
    ['requests, and of them served by a service', `${figure(report.sent, 0)}, ${figure(served, 0)}`],
    ['reads: p50 / p99 / max ms', pair(read)],
    ['commands: p50 / p99 / max ms', pair(command)],
    ['hand-overs without faults', paused.count],
    ['writes paused: p50 / p99 / max ms', pair(paused.rows)],
    [`the same as ${paused.met} of them were felt by a command`, pair(paused.felt)],
    ['hand-overs in all', moved],
    ['looks at the owners', figure(looks, 0)],
    ['orders answered 201', report.orders.length],
    [
      'delivered / rejected / cancelled',
      ['delivered', 'rejected', 'cancelled'].map((s) => session.outcome?.[s]).join(' / '),
    ],
    ['sent again after a reset, 502 or 503', session.troubles.length],
    ...(faults.failPoints === undefined ? [] : [['fail points reached', faults.failPoints]]),
    ...(faults.hung
      ? [['reads of a hung service, and the longest wait, ms', `${faults.hung.reads}, ${faults.hung.longest}`]]
      : []),
    ...(faults.random ? [['killed at random instants', JSON.stringify(faults.random.killed)]] : []),
    ...(faults.outages ? [['killed, of engines and fleet', JSON.stringify(faults.outages)]] : []),
    ...session.troublesByFault.map(([what, counts]) => [`not answered after ${what} was killed`, counts]),
  ];
  return { figures, rows };
}
