import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Control } from '../cutover/control.mjs';
import { LEG_LIMIT_MS, forced } from '../cutover/cycles.mjs';
import { Stack } from '../cutover/stack.mjs';
import { Engines } from '../support/engines.mjs';
import { FLEET } from '../support/fleet.mjs';
import { root } from '../support/program.mjs';

/** Contexts that are services of their own while customers buy: their calls and events go over NATS. */
const LEFT = ['inventory', 'payments'];
const LOGS = join(root, '.banyan/chaos-logs');

/** The shop as a fleet on NATS, Redis and Unleash, with two contexts out; everything but Postgres gets killed. */
export class Fleet {
  #engines;
  #stack;
  #control;
  #code;
  #closing;

  static async open({ settings }) {
    const fleet = new Fleet();
    fleet.#engines = await Engines.start('chaos-engines');
    fleet.#stack = new Stack({ settings, engines: fleet.#engines });
    fleet.#control = new Control(fleet.#stack);
    return fleet;
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
    return new FleetAssassin({ ...given, stack: this.#stack, engines: this.#engines });
  }

  figures(assassin) {
    return [['killed', JSON.stringify(assassin.killed)]];
  }

  async stop() {
    return (this.#code ??= this.#stack.stop({ keepLogs: LOGS }));
  }

  /** Safe to call again: Ctrl-C comes while it is being closed, too. */
  close() {
    return (this.#closing ??= this.stop().finally(() => this.#engines.stop()));
  }
}

const ENGINES = ['nats', 'redis'];
const VICTIMS = ['nats', 'redis', 'monolith', 'monolith', 'service', 'service', 'proxy', 'control-plane', 'bridge'];

/** Kills engines and processes at random instants; of a kind that there are several of, only while the others can serve. */
class FleetAssassin {
  kills = 0;
  killed = {};
  #away = new Map();

  constructor({ stack, engines, random, kills, every, mayKill }) {
    Object.assign(this, { stack, engines, random, wanted: kills, every, mayKill });
  }

  async work(isOver) {
    while (!isOver() && this.kills < this.wanted) {
      await sleep(this.random.between(50, 2 * this.every));
      for (const patience = performance.now() + 10_000; !this.mayKill() && performance.now() < patience;)
        await sleep(20);
      const name = this.random.one(VICTIMS);
      if (!(await (ENGINES.includes(name) ? this.#outage(name) : this.#instance(name)))) continue;
      this.kills++;
      this.killed[name] = (this.killed[name] ?? 0) + 1;
    }
    await Promise.all(this.#away.values());
  }

  /** Every second NATS comes back without its streams, and every second Redis without its keys. */
  async #outage(name) {
    if (this.#away.has(name)) return false;
    const how = { emptied: (this.killed[name] ?? 0) % 2 === 1 };
    const back = this.engines.outage(name, this.random.between(100, 2_000), how);
    this.#away.set(
      name,
      back.finally(() => this.#away.delete(name)),
    );
    return true;
  }

  async #instance(role) {
    const of = ['bridge', 'service'].includes(role) ? this.random.one(LEFT) : undefined;
    const running = this.stack.processes(role, of);
    if (running.length === 0 || (FLEET[role] && !(await this.stack.areReady(role, FLEET[role], of)))) return false;
    return this.stack.signal('SIGKILL', role, of, this.random.one(running).pid) !== undefined;
  }
}
