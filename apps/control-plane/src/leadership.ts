import { setTimeout as sleep } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import pg from 'pg';

const RETRY_MS = 250;

/**
 * Of several control planes one acts. Who holds the session lock in the control database does; when the session goes,
 * so does the lock. It is a convenience and no safeguard: a leader that was paused may act after another took
 * over, and every step is a compare-and-set because of that.
 */
export class Leadership {
  private readonly log = new Logger('Leadership');
  private readonly stopping = new AbortController();
  private client: pg.Client | undefined;
  private running: Promise<void> | undefined;
  private told = false;
  leading = false;
  /** Another one acts, as far as was seen last. */
  standsBy = false;

  constructor(
    private readonly url: string,
    /** Leads until the signal says that it is over; awaited before the next try. */
    private readonly lead: (signal: AbortSignal) => Promise<void>,
  ) {}

  start(): void {
    this.running ??= this.run();
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    // Who acts keeps the lock until its last step is done: the next one begins the moment it has it.
    if (!this.leading) await this.client?.end().catch(() => {});
    await this.running;
  }

  private async run(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      const client = new pg.Client({
        connectionString: this.url,
        application_name: 'banyan:control-plane leader',
        connectionTimeoutMillis: 2_000,
        keepAlive: true,
      });
      this.client = client;
      const over = new AbortController();
      client.on('error', () => over.abort()).once('end', () => over.abort());
      try {
        await client.connect();
        await this.lock(client);
        if (this.stopping.signal.aborted) return;
        this.leading = true;
        this.standsBy = this.told = false;
        this.log.log({ msg: 'this control plane acts' });
        await this.lead(AbortSignal.any([over.signal, this.stopping.signal]));
      } catch (err) {
        if (!this.stopping.signal.aborted) this.log.warn({ msg: 'not leading', err });
      } finally {
        this.leading = this.standsBy = false;
        await client.end().catch(() => {});
      }
      await sleep(RETRY_MS, undefined, { signal: this.stopping.signal }).catch(() => {});
    }
  }

  private async lock(client: pg.Client): Promise<void> {
    while (!this.stopping.signal.aborted) {
      const { rows } = await client.query<{ got: boolean }>(
        `select pg_try_advisory_lock(hashtextextended('banyan.control-plane', 0)) as got`,
      );
      if (rows[0]?.got) return;
      if (!this.told) this.log.log({ msg: 'another control plane acts; this one stands by' });
      this.told = this.standsBy = true;
      await sleep(RETRY_MS, undefined, { signal: this.stopping.signal }).catch(() => {});
    }
  }
}
