import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

/** Listens on one channel of one database, and connects again whenever the connection goes. Messages may get lost. */
export class NotifyListener {
  private client: pg.Client | undefined;
  private readonly stopping = new AbortController();
  private running: Promise<void> | undefined;

  constructor(
    private readonly url: string,
    private readonly channel: string,
    private readonly heard: (payload: string) => void,
  ) {}

  start(): void {
    this.running ??= this.run();
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await this.client?.end().catch(() => {});
    await this.running;
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping;
    for (let waitMs = 100; !signal.aborted; waitMs = Math.min(waitMs * 2, 5_000)) {
      const client = new pg.Client({
        connectionString: this.url,
        application_name: 'banyan:control-plane',
        connectionTimeoutMillis: 2_000,
        keepAlive: true,
      });
      this.client = client;
      const gone = new Promise<void>((done) => client.once('end', done).on('error', () => done()));
      client.on('notification', ({ payload }) => this.heard(payload ?? ''));
      try {
        await client.connect();
        await client.query(`listen ${client.escapeIdentifier(this.channel)}`);
        waitMs = 50;
        await gone;
      } catch {
        // The database is not there yet, or not any more: rows are looked at anyway, this only makes it faster.
      }
      await client.end().catch(() => {});
      await sleep(waitMs, undefined, { signal }).catch(() => {});
    }
  }
}
