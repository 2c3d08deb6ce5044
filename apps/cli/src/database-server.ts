import { contracts } from '@banyan/contracts';
import type { Config } from '@banyan/platform/config';
import { EmbeddedPostgres } from '@banyan/platform/database/server';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Screen } from './screen.js';

/** Of the bridges, the jobs, and one control plane; with something to spare. */
const OTHER_CONNECTIONS = 260;
/** Of one more control plane: four to each side of each context. */
const CONTROL_CONNECTIONS = 8 * contracts.length;

/** What the embedded server needs beyond its defaults: a pool for each context in every monolith, and in its services. */
export function connectionsOf({ database, instances }: Config): number {
  const pools = contracts.length * (instances.monoliths + instances.services);
  return pools * database.poolSize + OTHER_CONNECTIONS + (instances.controlPlanes - 1) * CONTROL_CONNECTIONS;
}

/** The database that DATABASE_URL names; without one an embedded Postgres of our own, which is kept alive. */
export class DatabaseServer {
  private postgres: EmbeddedPostgres | undefined;
  private starting: Promise<EmbeddedPostgres> | undefined;
  private stopping = false;

  constructor(
    private readonly config: Config,
    private readonly screen: Screen,
    /** Called whenever the process id has changed. */
    private readonly changed: () => void,
  ) {}

  /** Of the embedded server. */
  get process(): { pid: number; port: number } | undefined {
    return this.postgres;
  }

  /** Resolves with the URL that may do everything. */
  async start(): Promise<string> {
    const { url } = this.config.database;
    return url ?? (await this.startPostgres()).localUrl;
  }

  async stop(): Promise<void> {
    this.stopping = true;
    // One that is just starting has to be up before it can be stopped.
    const postgres = await this.starting?.catch(() => undefined);
    await postgres?.stop();
  }

  /** A URL for programs that may not know how to name a socket file in one. */
  forOthers(databaseUrl: string): string {
    const url = new URL(databaseUrl);
    if (this.postgres) url.searchParams.delete('host');
    return url.href;
  }

  private async startPostgres(): Promise<EmbeddedPostgres> {
    const { stateDir, extraction } = this.config;
    const connections = connectionsOf(this.config);
    this.starting = EmbeddedPostgres.start({
      stateDir,
      settings: [`max_connections=${connections}`, `max_slot_wal_keep_size=${extraction.walKeepMb}MB`],
      onExit: () => void this.restart(),
    });
    this.postgres = await this.starting;
    this.changed();
    return this.postgres;
  }

  /** The apps answer 503 meanwhile, and find their way back by themselves. */
  private async restart(): Promise<void> {
    for (let waitMs = 250; !this.stopping; waitMs = Math.min(waitMs * 2, 10_000)) {
      this.screen.tell({ event: 'notice', message: `Postgres ended by itself; it starts again in ${waitMs} ms.` });
      await sleep(waitMs);
      if (this.stopping) return;
      try {
        await this.postgres?.stop(); // lets go of the data of the one that ended
        await this.startPostgres();
        this.screen.tell({ event: 'notice', message: 'Postgres is back.' });
        return;
      } catch (error) {
        this.screen.tell({ event: 'notice', message: (error as Error).message });
      }
    }
  }
}
