import { setTimeout as sleep } from 'node:timers/promises';

/** Kills the app at random instants, while it serves and while it starts, and starts it again at once. */
export class Assassin {
  kills = 0;
  killsWhileStarting = 0;
  pspKills = 0;
  /** Milliseconds from `kill -9` to the next answer. */
  outages = [];

  /** `mayKill` lets the customers keep up, so that the last kill meets as much load as the first. */
  constructor({ shop, random, kills, every, mayKill }) {
    Object.assign(this, { shop, random, wanted: kills, every, mayKill });
  }

  async work(isOver) {
    const { app } = this.shop;
    while (!isOver() && this.kills < this.wanted) {
      await sleep(this.random.between(50, 2 * this.every));
      for (const patience = performance.now() + 5_000; !this.mayKill() && performance.now() < patience;)
        await sleep(20);
      const from = performance.now();
      await app.kill();
      this.kills++;
      if (this.random.chance(0.12)) await this.#shootProvider();
      for (;;) {
        const ready = app.start();
        // Not every start may come to its end either.
        if (this.kills < this.wanted && this.random.chance(0.1)) {
          await Promise.race([ready, sleep(this.random.between(100, 1_500))]);
          await app.kill();
          await ready;
          this.kills++;
          this.killsWhileStarting++;
        } else {
          await ready;
          break;
        }
      }
      this.outages.push(performance.now() - from);
    }
  }

  async #shootProvider() {
    const { psp } = this.shop;
    await psp.kill();
    this.pspKills++;
    await sleep(this.random.between(0, 1_000));
    await psp.start();
  }
}
