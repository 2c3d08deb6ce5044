import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { calledByAll, contracts } from '@banyan/contracts';
import { natsConfig, natsUsers } from '@banyan/messaging/nats-config';
import { startNats, startRedis, startUnleash } from '@banyan/testing/servers';
import { fleetSettings } from './fleet.mjs';
import { startPostgres } from './shop.mjs';

const users = natsUsers(contracts, calledByAll);

/**
 * NATS with the users and rights that `banyan nats-config` gives, Redis and a real Unleash, which a run starts, kills and
 * starts again. Unleash has a Postgres of its own, so that it does not go when the shop's does.
 */
export class Engines {
  secret = randomBytes(32).toString('base64url');

  /** `name` is the folder under `.banyan` that Unleash's database lives in. */
  static async start(name) {
    const engines = new Engines();
    try {
      engines.postgres = await startPostgres(name, ['fsync=off']);
      const flags = engines.postgres.database('banyan_flags').then(startUnleash);
      const started = await Promise.allSettled([
        startNats({ config: natsConfig({ users, secret: engines.secret }) }),
        startRedis(),
        flags,
      ]);
      [engines.nats, engines.redis, engines.unleash] = started.map(({ value }) => value);
      for (const { reason } of started) if (reason) throw reason;
      return engines;
    } catch (error) {
      await engines.stop();
      throw error;
    }
  }

  /** What `banyan up` is told: where they are, and how many processes it is to run beside them. */
  get settings() {
    const { nats, redis, unleash } = this;
    return {
      NATS_URL: nats.url,
      NATS_SECRET: this.secret,
      REDIS_URL: redis.url,
      UNLEASH_URL: unleash.url,
      UNLEASH_API_TOKEN: unleash.clientToken,
      UNLEASH_ADMIN_TOKEN: unleash.adminToken,
      ...fleetSettings,
    };
  }

  /** `kill -9` of one of them; it is back after `awayMs`, as new when `emptied`. */
  async outage(name, awayMs, how) {
    await this[name].kill();
    await sleep(awayMs);
    await this[name].restart(how);
  }

  async stop() {
    try {
      await Promise.all([this.nats, this.redis, this.unleash].map((engine) => engine?.stop()));
    } finally {
      await this.postgres?.stop();
    }
  }
}
