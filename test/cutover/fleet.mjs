import { setTimeout as sleep } from 'node:timers/promises';
import { startRedis } from '@banyan/testing/servers';
import { FLEET, fleetSettings } from '../support/fleet.mjs';
import { mintUsers } from '../support/mint.mjs';
import { figure } from '../support/report.mjs';
import { LEG_LIMIT_MS, cycles, forced, judgePauses } from './cycles.mjs';
import { killsIn } from './outages.mjs';
import { Session } from './session.mjs';
import { until } from './stack.mjs';

/** One of each after the other, while a context goes out and comes back. */
const VICTIMS = ['monolith', 'control-plane', 'service', 'proxy', 'monolith'];
const CONTEXT = 'inventory';
/** It goes out or comes back so many times at most until one of a kind was killed on the way. */
const ROUNDS = 3;

/**
 * Three monoliths and two of everything else: a hand-over as with one of each, then kills. Of the engines only Redis, through
 * which the proxies know each other's writes.
 */
export async function perform(given) {
  const { seed, rate, say, endings } = given;
  const redis = await endings.add(() => startRedis());
  const settings = { ...fleetSettings, REDIS_URL: redis.url };
  const session = new Session({ seed, rate, buyers: 40, say, settings, fleet: true });
  await endings.add(() => ({ stop: () => session.stop({ keepLogs: given.logs }) }));
  const { findings } = session;
  await session.start();
  await session.begin();
  let done;
  try {
    await cycles(session, CONTEXT, { times: 1, dwellMs: 500, force: true });
    const sides = await stickiness(session);
    const killed = await strikes(session);
    done = { sides, killed };
  } catch (error) {
    findings.wrong('stages', error.message);
  }
  done = { ...done, ...(await session.finish()) };
  const calm = judgePauses(session, done);
  const { read, command } = done.report.latencies;
  const three = ({ p50, p99, max }) => `${figure(p50)} / ${figure(p99)} / ${figure(max)}`;
  const figures = {
    ...{ requests: done.report.sent, orders: done.report.orders.length, handovers: done.handovers.length },
    ...{ pause: calm, sides: done.sides, killed: done.killed, sentAgain: session.troubles.length },
  };
  const rows = [
    ['requests', figure(figures.requests, 0)],
    ['reads: p50 / p99 / max ms', three(read)],
    ['commands: p50 / p99 / max ms', three(command)],
    ['hand-overs in all', figures.handovers],
    ['writes paused without kills: p50 / p99 / max ms', three(calm.rows)],
    ['users in canary: monolith / service', `${done.sides?.monolith} / ${done.sides?.service}`],
    ['killed', JSON.stringify(done.killed)],
    ['sent again', figures.sentAgain],
  ];
  return { findings, logs: given.logs, figures, rows };
}

/** In canary at 50 % every proxy sends a user to the same side. */
async function stickiness({ control, findings, stack, stock }) {
  const users = await mintUsers(stack.adminUrl('monolith'), 20, () => ['customer']);
  await control.move(CONTEXT, 'canary', { percent: 50, limitMs: LEG_LIMIT_MS, ...forced() });
  const sides = { monolith: 0, service: 0 };
  // One that is there: what a copy does not know is asked of the owner.
  const [sku] = stock.keys();
  const seen = async (url, { token }) => {
    const answer = await fetch(`${url}/v1/stock/${sku}`, { headers: { authorization: `Bearer ${token}` } });
    await answer.text();
    return answer.headers.get('banyan-served-by');
  };
  // Each has heard of the stage and of the share.
  const agreed = await until(
    async () => {
      const all = [];
      // No burst: a service that is slow to answer is passed over.
      for (const user of users) all.push(await Promise.all(stack.urls.map((url) => seen(url, user))));
      if (all.some((each) => new Set(each).size > 1)) return false;
      Object.assign(sides, { monolith: 0, service: 0 });
      for (const [side] of all) sides[side]++;
      return Math.min(sides.monolith, sides.service) > 2;
    },
    60_000,
    250,
  );
  if (!agreed) findings.wrong('ownWrites', `two proxies send users to different sides: ${JSON.stringify(sides)}`);
  return sides;
}

async function strikes(session) {
  const { findings, random, say, stack } = session;
  const kills = killsIn(session);
  const strike = async (name) => {
    const how = await kills.strike(name, CONTEXT);
    if (how) say(`killed ${name} (${how})`);
    return Boolean(how);
  };
  await session.amidFaults(async () => {
    let at = 'monolith';
    for (const name of VICTIMS) {
      let done = false;
      for (let round = 0; !done && round < ROUNDS; round++) {
        at = at === 'monolith' ? 'live' : 'monolith';
        let arrived = false;
        const moving = session.move(CONTEXT, at, { limitMs: LEG_LIMIT_MS, ...forced() });
        moving.catch(() => {}).finally(() => (arrived = true)); // told below
        await sleep(random.between(0, 1_000));
        // Only one whose others can serve; where that is too late, the next time.
        await until(async () => (done = await strike(name)) || arrived, LEG_LIMIT_MS, 100);
        say(`${CONTEXT} came to ${at} in ${((await moving) / 1_000).toFixed(1)} s`);
        if (!done && at === 'live') done = Boolean(await until(() => strike(name), 60_000, 100));
      }
      if (!done) findings.wrong('faults', `no ${name} could be killed, because its others did not serve`);
    }
    if (at === 'live') await session.move(CONTEXT, 'monolith', { limitMs: LEG_LIMIT_MS });
    await until(() => stack.areReady('monolith', FLEET.monolith), LEG_LIMIT_MS, 250);
  });
  return kills.killed;
}
