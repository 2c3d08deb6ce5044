import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Control } from '../cutover/control.mjs';
import { LEG_LIMIT_MS, forced } from '../cutover/cycles.mjs';
import { Stack } from '../cutover/stack.mjs';
import { Engines } from '../support/engines.mjs';
import { Kills } from '../support/kills.mjs';
import { root } from '../support/program.mjs';

/** Contexts that are services of their own while customers buy: their calls and events go over NATS. */
const LEFT = ['inventory', 'payments'];
const LOGS = join(root, '.banyan/chaos-logs');

/** The shop as a fleet on NATS, Redis and Unleash, with two contexts out; everything but Postgres gets killed. */
export class Fleet {
  #stack;
  #control;

  static async open({ settings, endings }) {
    const fleet = new Fleet();
    const engines = await endings.add(() => Engines.start('chaos-engines'));
    fleet.#stack = new Stack({ settings, engines });
    fleet.#control = new Control(fleet.#stack);
    return endings.add(() => fleet);
  }

  get databaseUrl() {
    return this.#stack.adminUrl('monolith');
  }

  get journal() {
    return this.#stack.journal;
  }

  get pspUrl() {
    return `http://127.0.0.1:${this.#stack.processes('psp-simulator')[0].ports[0]}`;
  }

  async start(wrong) {
    const ms = await this.#stack.start();
    this.urls = this.#stack.urls;
    this.wrong = wrong;
    return ms;
  }

  async prepare() {
    for (const context of LEFT) await this.#control.move(context, 'live', { limitMs: LEG_LIMIT_MS, ...forced() });
  }

  /** Everybody home, where the books are held. */
  async settle() {
    for (const context of LEFT) await this.#control.move(context, 'monolith', { limitMs: LEG_LIMIT_MS, ...forced() });
    // Killed by the assassin is as it should be; anything else is not.
    for (const { message } of this.#stack.crashes) if (!/\(SIGKILL\)|Postgres/.test(message)) this.wrong(message);
  }

  assassin(given) {
    return new FleetAssassin({ ...given, stack: this.#stack, complain: this.wrong });
  }

  figures(assassin) {
    return [['killed', JSON.stringify(assassin.killed)]];
  }

  /** Asks it to stop; 0 is well. */
  stop() {
    return this.#stack.stop({ keepLogs: LOGS });
  }
}

const VICTIMS = ['nats', 'redis', 'monolith', 'monolith', 'service', 'service', 'proxy', 'control-plane', 'bridge'];

/** Kills engines and processes at random instants. */
class FleetAssassin {
  kills = 0;

  constructor({ stack, random, kills, every, mayKill, complain }) {
    Object.assign(this, { random, wanted: kills, every, mayKill, striking: new Kills({ stack, random, complain }) });
  }

  get killed() {
    return this.striking.killed;
  }

  async work(isOver) {
    while (!isOver() && this.kills < this.wanted) {
      await sleep(this.random.between(50, 2 * this.every));
      for (const patience = performance.now() + 10_000; !this.mayKill() && performance.now() < patience;)
        await sleep(20);
      if (await this.striking.strike(this.random.one(VICTIMS), this.random.one(LEFT))) this.kills++;
    }
    await this.striking.over();
  }
}
