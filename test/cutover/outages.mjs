import { setTimeout as sleep } from 'node:timers/promises';
import { Kills } from '../support/kills.mjs';
import { LEG_LIMIT_MS, forced } from './cycles.mjs';

/** Who is killed how often, of all. */
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

/**
 * Contexts, taken in turn, go out and come back on NATS, Redis and Unleash while those and any process of the fleet are
 * killed; answers how often each was.
 */
export async function outages(session, contexts, { kills: wanted, everyMs }) {
  const { control, findings, random, say } = session;
  const deck = new Deck(random);
  const kills = killsIn(session);
  let context = contexts[0];
  await session.amidFaults(async () => {
    let over = false;
    const killing = (async () => {
      for (let count = 0; count < wanted; await sleep(random.between(0.2 * everyMs, 1.8 * everyMs))) {
        const name = deck.next();
        const how = await kills.strike(name, context);
        if (how) say(`killed ${name} (${how}), ${++count} of ${wanted}`);
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
    await kills.over();
  });
  return kills.killed;
}

/** Kills that the session knows of: it judges by them what was not answered. */
export function killsIn(session) {
  const { findings, random, stack } = session;
  return new Kills({
    stack,
    random,
    struck: (what) => session.struck(what),
    complain: (text) => findings.wrong('processes', text),
  });
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
