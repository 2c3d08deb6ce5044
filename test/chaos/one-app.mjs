import { figure, median, quantile } from '../support/report.mjs';
import { shopOn, startPostgres } from '../support/shop.mjs';
import { Assassin } from './assassin.mjs';

/** The shop as one app on a Postgres of its own: what gets killed is the app, and at times the provider's simulator. */
export class OneApp {
  #shop;

  static async open({ keep, settings, endings }) {
    const one = new OneApp();
    // The app is what gets killed, not Postgres, so what Postgres has said is there need not survive a power cut.
    const postgres = await endings.add(async () => {
      const started = await startPostgres('chaos', ['fsync=off']);
      return { ...started, stop: () => started.stop({ keep }) };
    });
    one.databaseUrl = await postgres.database('banyan_chaos');
    one.#shop = await shopOn({ databaseUrl: one.databaseUrl, stateDir: postgres.stateDir, settings });
    return endings.add(() => one);
  }

  get urls() {
    return [this.#shop.url];
  }

  get journal() {
    return this.#shop.journal;
  }

  get pspUrl() {
    return this.#shop.pspUrl;
  }

  /** Answers how long it took, ms; `wrong` is told of whoever ends by itself. */
  start(wrong) {
    const { app, psp } = this.#shop;
    app.onCrash = (how) => wrong(`the app ended by itself (${how}), see ${app.log}`);
    psp.onCrash = (how) => wrong(`the simulator ended by itself (${how}), see ${psp.log}`);
    return this.#shop.start();
  }

  /** Before the load begins, and after it. */
  async prepare() {}
  async settle() {}

  assassin(given) {
    return new Assassin({ ...given, shop: this.#shop });
  }

  figures(assassin) {
    return [
      ['kills of the app (while it started)', `${assassin.kills} (${assassin.killsWhileStarting})`],
      ["kills of the provider's simulator", assassin.pspKills],
      ['outage, p50 / p99 ms', `${figure(median(assassin.outages))} / ${figure(quantile(assassin.outages, 0.99))}`],
    ];
  }

  /** Asks it to stop; 0 is well. */
  stop() {
    return this.#shop.stop();
  }
}
