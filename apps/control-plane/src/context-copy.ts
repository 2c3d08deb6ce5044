import { Logger } from '@nestjs/common';
import type { Side } from '@banyan/kernel';
import { reached } from '@banyan/extraction';
import { otherSide, ownerOf } from '@banyan/extraction/protocol';
import type { ContextState } from './control-store.js';
import type { HandOverRows } from './hand-over.js';
import type { OwnerDatabases } from './owner-databases.js';
import type { ProcessState, Runtime, Wanted } from './runtime.js';
import type { StreamState, Streams } from './streams.js';
import type { Progress } from './transitions.js';

/** A hand-over begins only when the copy is closer than this: what is left has to be applied while commands are held. */
const CLOSE_BYTES = 1024 * 1024;
const CLOSE_MS = 2_000;
/** How often a stream that is only kept is looked at, ms. */
const LOOK_MS = 1_000;
/** How often a stream that nobody needs any more is looked for, ms. */
const STALE_EVERY_MS = 2_000;

interface CopyPorts {
  owners: OwnerDatabases;
  streams: Streams;
  runtime: Runtime;
  wantedChanged(): void;
}

/** What came of looking after the copy. */
export interface Upkeep {
  /** It is not as it has to be, and this is done about it. */
  progress?: Progress;
  /** The copy is lost: the stage has to go back to where one is made. */
  fellBack?: string;
}

/**
 * The other side's copy of a context's data: its database, the stream that keeps it, and the processes around it. There
 * is one stream, from the owner to the other side, plus, from just before a hand-over until it is over, the one
 * back.
 */
export class ContextCopy {
  /** The service's database is there, so bridge and service may run. */
  made = false;
  /** From the owner to the other side, as last seen. */
  stream: StreamState | undefined;
  private readonly log = new Logger('Reconciler');
  /** The way back of the hand-over that is about to begin; made anew for each. */
  private wayBackReady = false;
  private lookedAt = 0;
  private staleCheckedAt = 0;

  constructor(
    private readonly context: string,
    private readonly ports: CopyPorts,
  ) {}

  processes(): Wanted[] {
    const { context } = this;
    const { owners } = this.ports;
    const service = owners.url(context, 'service');
    return [
      { role: 'service', context, settings: { DATABASE_URL: service } },
      {
        role: 'bridge',
        context,
        settings: {
          BANYAN_CONTEXT: context,
          BANYAN_DATABASE_URL_MONOLITH: owners.url(context, 'monolith'),
          BANYAN_DATABASE_URL_SERVICE: service,
        },
      },
    ];
  }

  /** Database, processes, stream: everything of stage replicate. The service has to be ready before a row is copied. */
  async make(rows: HandOverRows): Promise<Progress> {
    const { owners, streams } = this.ports;
    if (!this.made) await owners.ensureService(this.context);
    const service = await owners.row(this.context, 'service');
    if (!service) throw new Error(`The service's database has no schema ${this.context}`);
    if (service.epoch > rows.monolith.epoch)
      throw new Error(
        `The service's database is of another installation: its epoch ${service.epoch} is ahead of the monolith's ` +
          `${rows.monolith.epoch}. Drop it, or set ${this.context.toUpperCase()}_SERVICE_DATABASE_URL to another one`,
      );
    owners.listen(this.context);
    if (!this.made) {
      this.made = true;
      try {
        this.ports.wantedChanged();
      } catch (error) {
        this.made = false;
        throw error;
      }
    }
    const waiting = this.notReady('service');
    if (waiting) return waiting;
    await streams.preflight(this.context, 'monolith');
    const { kind } = await streams.state(this.context, 'monolith');
    if (kind !== 'prepared') await streams.prepare(this.context, 'monolith', { targetEpoch: service.epoch });
    return 'done';
  }

  /** Looks after the stream of a context that has left, and mends it where it is lost. */
  async keep(state: ContextState, rows: HandOverRows): Promise<Upkeep | undefined> {
    const owner = ownerOf(rows);
    if (!state.outside || state.stage === 'monolith' || !owner) {
      this.stream = undefined;
      return undefined;
    }
    this.made = true;
    if ((state.target === 'live') === (owner === 'service')) this.wayBackReady = false;
    if (this.stream?.kind === 'prepared' && state.stage === state.target && Date.now() - this.lookedAt < LOOK_MS)
      return undefined;
    const other = otherSide(owner);
    this.stream = await this.ports.streams.state(this.context, owner);
    this.lookedAt = Date.now();
    await this.dropStale(other);
    if (this.stream.kind === 'prepared') return undefined;

    const why = this.stream.problem ?? `the stream from the ${owner} is ${this.stream.kind}`;
    // What is served from a copy that has stopped would grow old: back to where nothing is.
    if (owner === 'monolith' && reached(state.stage, 'shadow'))
      return { fellBack: `the copy has to be made anew: ${why}` };
    this.log.warn({ msg: 'copying again', context: this.context, from: owner, why });
    await this.ports.streams.prepare(this.context, owner, { targetEpoch: rows[other].epoch });
    return { progress: { doing: `copying the rows of the ${owner} again`, blocked: why } };
  }

  /** Everything that a hand-over to `to` needs; the way back is made here. */
  async readyToHandOver(to: Side): Promise<Progress> {
    const doing = `preparing the hand-over to the ${to}`;
    const waiting = this.notReady('bridge') ?? (to === 'service' ? this.notReady('service') : undefined);
    if (waiting) return waiting;
    const { stream } = this;
    if (!stream || stream.kind !== 'prepared' || stream.problem)
      return { doing, blocked: stream?.problem ?? 'The bridge has not said yet how far it is' };
    if (!stream.connected) return { doing, blocked: 'The bridge is not connected to the owner. Its log says why' };
    if (stream.copy && !stream.copy.done)
      return {
        doing: `copying rows (${Math.floor(stream.copy.percent)} %)`,
        blocked: 'The rows are not all copied yet',
      };
    if (!this.wayBackReady || (await this.ports.streams.state(this.context, to)).kind !== 'prepared') {
      // Made while the target has every row and cannot write: from its first own write on, all of them are kept.
      await this.ports.streams.prepare(this.context, to, null);
      this.wayBackReady = true;
      return { doing };
    }
    if (!stream.lag || stream.lag.bytes > CLOSE_BYTES || stream.lag.ms > CLOSE_MS)
      return {
        doing,
        blocked: `The copy is ${stream.lag ? `${stream.lag.ms} ms` : 'an unknown time'} behind its owner`,
      };
    return 'done';
  }

  /** The hand-over is over, done or called off. */
  handedOver(): void {
    this.stream = undefined;
    this.wayBackReady = false;
    this.staleCheckedAt = 0;
  }

  /** Nobody uses it any more: processes first, then what they read from. */
  async remove(): Promise<Progress> {
    const { streams, runtime } = this.ports;
    if (this.made) {
      this.made = false;
      this.ports.wantedChanged();
    }
    this.stream = undefined;
    if (runtime.observe().some(({ context }) => context === this.context))
      return { doing: 'stopping the service and the bridge' };
    await streams.drop(this.context, 'monolith');
    await streams.drop(this.context, 'service');
    return 'done';
  }

  /**
   * After a hand-over the stream that fed the new owner is of no use: its slot would only keep the old owner's log.
   * So would a way back that was made for a hand-over that never came.
   */
  private async dropStale(from: Side): Promise<void> {
    if (this.wayBackReady || Date.now() - this.staleCheckedAt < STALE_EVERY_MS) return;
    this.staleCheckedAt = Date.now();
    const { streams } = this.ports;
    try {
      const { kind } = await streams.state(this.context, from);
      if (kind !== 'absent') await streams.drop(this.context, from);
    } catch (err) {
      // The bridge may be about to turn away from it.
      this.log.warn({ msg: 'a stream that is over is still there', context: this.context, from, err });
    }
  }

  private notReady(role: ProcessState['role']): Progress | undefined {
    const process = this.ports.runtime.observe().find((each) => each.role === role && each.context === this.context);
    if (process?.ready) return undefined;
    const doing = `starting the ${role}`;
    return process?.error
      ? { doing, blocked: `The ${role} does not become ready: ${process.error}. Its log says more; it is tried again` }
      : { doing };
  }
}
