import type { Config } from '@banyan/platform/config';

/** What this installation runs on, in words: for the banner and for programs. No secrets in it. */
export interface Engines {
  database: string;
  calls: string;
  events: string;
  /** Jobs, limits and what is cached between processes. */
  shared: string;
  flags: string;
}

export function enginesOf({ database, nats, transports, redisUrl, flags }: Config): Engines {
  const broker = nats && `NATS at ${nats.servers.map(hostOf).join(', ')}`;
  return {
    database: database.url === undefined ? 'Postgres, built in' : `Postgres at ${hostOf(database.url)}`,
    calls: broker && transports.rpc === 'nats' ? broker : 'TCP',
    events: broker && transports.events === 'jetstream' ? `JetStream on ${broker}` : 'direct, from outbox to inbox',
    shared: redisUrl === undefined ? 'Postgres for jobs, else each process its own' : `Redis at ${hostOf(redisUrl)}`,
    flags: flags.url === undefined ? 'own' : `Unleash at ${hostOf(flags.url)}`,
  };
}

/** A socket file's folder stands in `host=`, with no host before it. */
function hostOf(text: string): string {
  const url = new URL(text);
  return url.host || url.searchParams.get('host') || 'its default address';
}
