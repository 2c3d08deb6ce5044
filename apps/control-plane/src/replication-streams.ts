import type { Side } from '@banyan/kernel';
import { otherSide, streamName } from '@banyan/extraction/protocol';
import { type Stream, dropStream, preflight, prepareStream, streamState } from '@banyan/replication';
import pg from 'pg';
import type { OwnerDatabases } from './owner-databases.js';
import { type StreamState, Streams } from './streams.js';

interface OwnerFacts {
  open: boolean;
  epoch: string;
}

/** The streams between the two databases of each context, as the bridge runs them. */
export class ReplicationStreams extends Streams {
  constructor(private readonly owners: OwnerDatabases) {
    super();
  }

  async preflight(context: string, from: Side): Promise<void> {
    const problems = await preflight(this.stream(context, from));
    if (problems.length > 0) throw new Error(problems.map(({ message }) => message).join(' '));
  }

  /**
   * The checks are what makes a caller harmless who decided an hour ago: meanwhile the side that is to be emptied may
   * have been the owner, or the side whose log is to be followed from now on may have written.
   */
  async prepare(context: string, from: Side, backfill: { targetEpoch: number } | null): Promise<void> {
    const table = `${pg.escapeIdentifier(context)}.banyan_owner`;
    const read = `select open, epoch from ${table}`;
    await prepareStream(this.stream(context, from), {
      backfill: backfill !== null,
      check: async ({ source, target }) => {
        if (backfill) {
          // Locked: it cannot be opened until it is empty and its mark is gone, and without a mark nobody opens it.
          const { rowCount } = await target.query(`${read} where not open and epoch = $1 for update`, [
            backfill.targetEpoch,
          ]);
          if (rowCount === 0) throw refused(context, `the ${otherSide(from)} has been the owner meanwhile`);
          return;
        }
        // After the slot was made: a source that is closed now has written nothing since, and a target that opened
        // at its last epoch or later has all that it ever wrote.
        const [to] = (await target.query<OwnerFacts>(read)).rows;
        const [of] = (await source.query<OwnerFacts>(read)).rows;
        if (!of || !to || of.open || !to.open || BigInt(to.epoch) < BigInt(of.epoch))
          throw refused(context, `the ${otherSide(from)} does not own what the ${from} has`);
      },
    });
  }

  async drop(context: string, from: Side): Promise<void> {
    const stream = this.stream(context, from);
    try {
      await dropStream(stream);
    } catch (error) {
      if ((error as { code?: string }).code !== '3D000') throw error;
      // One of the databases is gone for good, or never was. What the other one keeps for it is taken away all the same.
      await this.dropInSource(context, from, stream.name).catch(ifMissing);
    }
  }

  private async dropInSource(context: string, from: Side, name: string): Promise<void> {
    await this.owners.ask(
      context,
      from,
      'select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and database = current_database()',
      [name],
    );
    await this.owners.ask(context, from, `drop publication if exists ${pg.escapeIdentifier(name)}`);
  }

  async state(context: string, from: Side): Promise<StreamState> {
    const { state, reason, backfill, lag, active } = await streamState(this.stream(context, from), {
      source: this.owners.pool(context, from),
      target: this.owners.pool(context, otherSide(from)),
    });
    return {
      kind: state === 'absent' || state === 'lost' ? state : 'prepared',
      connected: active,
      copy: backfill && { percent: backfill.percent, rows: backfill.rows, done: backfill.done },
      lag,
      problem: reason,
    };
  }

  private stream(context: string, from: Side): Stream {
    const source = this.owners.url(context, from);
    return {
      name: streamName(context, from, source),
      source,
      target: this.owners.url(context, otherSide(from)),
      schema: context,
    };
  }
}

const refused = (context: string, why: string): Error =>
  new Error(`The copy of ${context} is not touched: ${why}. What is to be done is decided anew`);

const ifMissing = (error: unknown): void => {
  if ((error as { code?: string }).code !== '3D000') throw error;
};
