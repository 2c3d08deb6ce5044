import { Logger } from '@nestjs/common';
import type { Side } from '@banyan/kernel';
import { nextStep, otherSide, ownerOf, sourceOf } from '@banyan/extraction/protocol';
import { failPoint } from '@banyan/platform/fail-point';
import { isAway, type OwnerDatabases, type SeenRow } from './owner-databases.js';
import type { Waker } from './waker.js';

/**
 * From the closing of one side to the opening of the other. A bridge that is killed in the middle is back after
 * about a second and still makes it; and what is called off then was held for less than the 2 s of the routers.
 */
const LIMIT_MS = 1_500;
/** Rows are looked at this often while nobody owns the context: the notification may get lost. */
const POLL_MS = 15;

export type HandOverRows = Readonly<Record<Side, SeenRow>>;

export interface HandOverPorts {
  rows(): Promise<HandOverRows>;
  /** Tells the routers to hold commands, or to go on. */
  hold(holding: boolean): Promise<void>;
  /** The side that is to own the context, as things are now. */
  want(rows: HandOverRows): Side;
  /** Why it takes longer than it should; null: it goes on. */
  waits(reason: string | null): void;
}

/** One context's change of owner: `docs/protocol.md`. It remembers nothing; the rows say how far it has come. */
export class HandOver {
  private readonly log = new Logger('HandOver');

  constructor(
    private readonly context: string,
    private readonly owners: OwnerDatabases,
    private readonly ports: HandOverPorts,
    private readonly waker: Waker,
  ) {}

  /** Closes the owner, if it is the owner as seen in `rows`. What comes next is `finish`. */
  async begin(rows: HandOverRows, signal: AbortSignal): Promise<void> {
    const want = this.ports.want(rows);
    const action = nextStep(rows, want, { ready: true, overdue: false });
    if (action.do !== 'close' || signal.aborted) return;
    failPoint('handover-before-hold');
    await this.ports.hold(true);
    failPoint('handover-before-close');
    try {
      const closed = await this.owners.close(this.context, action.side, action.expected, action.to);
      failPoint('handover-after-close');
      this.log.log({ msg: closed === null ? 'not closed' : 'closed', context: this.context, epoch: closed, to: want });
      if (closed === null) await this.ports.hold(false);
    } catch (error) {
      // It may have been closed all the same: the rows will tell, and until then nobody is kept waiting.
      await this.ports.hold(false);
      throw error;
    }
  }

  /** While nobody owns the context: waits for the bridge, or calls it off. Answers who owns it then. */
  async finish(signal: AbortSignal): Promise<{ rows: HandOverRows; calledOff: boolean } | undefined> {
    let calledOff = false;
    while (!signal.aborted) {
      const rows = await this.ports.rows();
      if (ownerOf(rows)) return { rows, calledOff };
      const from = sourceOf(rows);
      const action = nextStep(rows, this.ports.want(rows), { ready: true, overdue: rows[from].ageMs > LIMIT_MS });
      switch (action.do) {
        case 'bar':
          await this.bar(action.side, action.below);
          failPoint('handover-after-bar');
          break;
        case 'reopen':
          calledOff = await this.owners.reopen(this.context, action.side, action.closedAt);
          failPoint('handover-after-reopen');
          this.log.warn({ msg: 'called off', context: this.context, epoch: action.closedAt, reopened: calledOff });
          break;
        default:
          await this.waker.sleep(POLL_MS);
      }
    }
    return undefined;
  }

  private async bar(side: Side, below: number): Promise<void> {
    try {
      const barred = await this.owners.bar(this.context, side, below);
      this.log.warn({ msg: barred ? 'barred' : 'it has opened meanwhile', context: this.context, side, below });
      this.ports.waits(null);
    } catch (error) {
      // Nobody knows whether it will open, so the other side must stay closed.
      this.ports.waits(
        `the hand-over is overdue, and the database of the ${side} ${isAway(error) ? 'does not answer' : 'is busy'}: ` +
          `the ${otherSide(side)} stays closed until it does. Bring that database back`,
      );
      await this.waker.sleep(250);
    }
  }
}
