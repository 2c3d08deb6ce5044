import { setTimeout as sleep } from 'node:timers/promises';
import { FLEET } from '../support/fleet.mjs';
import { LEG_LIMIT_MS, forced } from './cycles.mjs';

/** Who is killed how often, of all. Every second NATS comes back without its streams, and every second Redis without its keys. */
const VICTIMS = Object.entries({
  nats: 4,
  redis: 4,
  unleash: 1,
  monolith: 4,
  proxy: 3,
  service: 4,
  bridge: 2,
  'control-plane': 2,
}).flatMap(([name, times]) => Array(times).fill(name));
const ENGINES = ['nats', 'redis', 'unleash'];
/** How long an engine stays away, ms; Unleash takes its own time to start. */
const AWAY = { nats: [200, 4_000], redis: [200, 4_000], unleash: [0, 500] };

/**
 * Contexts, taken in turn, go out and come back on NATS, Redis and Unleash while those and any process of the fleet are
 * killed; answers how often each was. One instance of a kind at a time: where the last one is gone there is no one to answer.
 */
export async function outages(session, contexts, { kills, everyMs }) {
  const { control, findings, random, say } = session;
  const deck = new Deck(random);
  const killed = {};
  const away = new Map();
  let context = contexts[0];
  const strike = async (name) => {
    if (!ENGINES.includes(name)) return killInstance(session, name, context);
    if (away.has(name)) return false;
    const how = { emptied: name !== 'unleash' && (killed[name] ?? 0) % 2 === 1 };
    session.struck(name);
    const back = session.stack.engines.outage(name, random.between(...AWAY[name]), how);
    away.set(
      name,
      back.catch((error) => findings.wrong('processes', error.message)).then(() => away.delete(name)),
    );
    return how.emptied ? 'and what it kept is gone' : 'it keeps what it had';
  };
  await session.amidFaults(async () => {
    let over = false;
    const killing = (async () => {
      for (let count = 0; count < kills; await sleep(random.between(0.2 * everyMs, 1.8 * everyMs))) {
        const name = deck.next();
        const done = await strike(name);
        if (!done) continue;
        killed[name] = (killed[name] ?? 0) + 1;
        say(`killed ${name} (${done}), ${++count} of ${kills}`);
      }
    })().finally(() => (over = true));
    killing.catch(() => {}); // told below
    for (let turn = 0; !over; turn++) {
      context = contexts[turn % contexts.length];
      await session.watch(context);
      for (const stage of ['live', 'monolith'])
        try {
          const ms = await control.move(context, stage, { limitMs: LEG_LIMIT_MS, ...forced() });
          say(`${context} came to ${stage} in ${(ms / 1_000).toFixed(1)} s in spite of it`);
        } catch (error) {
          findings.wrong('stages', error.message);
        }
    }
    await killing;
    await Promise.all(away.values());
  });
  return killed;
}

/** Answers which one; false when it has to wait until the others of its kind can serve. */
export async function killInstance(session, role, context) {
  const { random, stack } = session;
  const of = ['bridge', 'service'].includes(role) ? context : undefined;
  const running = stack.processes(role, of);
  if (running.length === 0 || (FLEET[role] && !(await stack.areReady(role, FLEET[role], of)))) return false;
  const { pid } = random.one(running);
  session.struck(role);
  if (stack.signal('SIGKILL', role, of, pid) === undefined) return false;
  return of ?? `1 of ${running.length}`;
}

/** All victims in a new order, again and again: chance must not leave one out. */
class Deck {
  #left = [];

  constructor(random) {
    this.random = random;
  }

  next() {
    if (this.#left.length === 0) this.#left = [...VICTIMS];
    return this.#left.splice(this.random.below(this.#left.length), 1)[0];
  }
}
