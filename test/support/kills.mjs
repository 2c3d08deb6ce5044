import { FLEET } from './fleet.mjs';

const ENGINES = ['nats', 'redis', 'unleash'];
/** How long an engine stays away, ms; Unleash takes its own time to start. */
const AWAY = { nats: [200, 4_000], redis: [200, 4_000], unleash: [0, 500] };

/** `kill -9` of engines, which are started again a little later, and of processes of a fleet, for which `banyan up` does so. */
export class Kills {
  /** How often each was. */
  killed = {};
  #away = new Map();

  /** `struck` hears who is being killed now, and `complain` of an engine that does not come back. */
  constructor({ stack, random, complain, struck = () => {} }) {
    Object.assign(this, { stack, random, complain, struck });
  }

  /**
   * Kills an engine or a process of that role, of a bridge or a service that of the context; answers how. One of a kind at a
   * time: false when it has to wait until the others can serve, because where the last one is gone there is no one to answer.
   */
  async strike(name, context) {
    const how = ENGINES.includes(name) ? this.#engine(name) : await this.#instance(name, context);
    if (how) this.killed[name] = (this.killed[name] ?? 0) + 1;
    return how;
  }

  /** Resolves when every engine is back. */
  async over() {
    await Promise.all(this.#away.values());
  }

  /* Every second NATS comes back without its streams, and every second Redis without its keys. */
  #engine(name) {
    if (this.#away.has(name)) return false;
    const emptied = name !== 'unleash' && (this.killed[name] ?? 0) % 2 === 1;
    this.struck(name);
    const back = this.stack.engines.outage(name, this.random.between(...AWAY[name]), { emptied });
    this.#away.set(
      name,
      back.catch((error) => this.complain(error.message)).then(() => this.#away.delete(name)),
    );
    return emptied ? 'and what it kept is gone' : 'it keeps what it had';
  }

  async #instance(role, context) {
    const of = ['bridge', 'service'].includes(role) ? context : undefined;
    const running = this.stack.processes(role, of);
    if (running.length === 0 || (FLEET[role] && !(await this.stack.areReady(role, FLEET[role], of)))) return false;
    const { pid } = this.random.one(running);
    this.struck(role);
    if (this.stack.signal('SIGKILL', role, of, pid) === undefined) return false;
    return of ?? `1 of ${running.length}`;
  }
}
