import type { Stage } from '@banyan/extraction/stage';
import type { ContextStatus } from '@banyan/extraction/status';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlClient } from './control-client.js';
import { CommandError, sentence } from './exit.js';

/** The same reason without any movement for this long will not go away by itself. */
const PATIENCE_MS = 60_000;

export interface Goal {
  stage: Stage;
  /** Of a canary. */
  percent?: number;
}

export interface FollowOptions {
  timeoutMs: number;
  signal: AbortSignal;
  /** Called with every change. */
  onStatus: (status: ContextStatus) => void;
  /** Called when the control plane is away, once each time. */
  onAway?: () => void;
  patienceMs?: number;
}

/** Is it where the goal says, with nothing left to do? */
export function arrived({ stage, target, percent, owner, doing }: ContextStatus, goal: Goal): boolean {
  const settled = stage === goal.stage && target === goal.stage && owner !== null && doing === null;
  return settled && (goal.percent === undefined || goal.stage !== 'canary' || percent === goal.percent);
}

/**
 * Follows a context to its goal, over restarts of the control plane. Throws CommandError: BLOCKED when somebody has to
 * do something, REFUSED when another target was set, TIMEOUT; AbortError when `signal` says so.
 */
export async function follow(
  client: ControlClient,
  context: string,
  goal: Goal,
  options: FollowOptions,
): Promise<ContextStatus> {
  const watch = new Watch(context, goal, options);
  for (let waitMs = 250; ; waitMs = Math.min(waitMs * 2, 2_000)) {
    const connection = new AbortController();
    const signal = AbortSignal.any([options.signal, connection.signal]);
    // Also while nothing is told: patience and time run out then, too.
    const clock = setInterval(() => watch.overdue() && connection.abort(), 250);
    try {
      for await (const status of client.stream(signal)) {
        if (status.context !== context) continue;
        waitMs = 250;
        if (watch.sees(status)) return status;
      }
    } catch (error) {
      const passing = error instanceof CommandError ? error.code === 'UNREACHABLE' : !options.signal.aborted;
      if (!passing) throw error;
    } finally {
      clearInterval(clock);
      connection.abort();
    }
    options.signal.throwIfAborted();
    watch.checkTime();
    options.onAway?.();
    await sleep(waitMs, undefined, { signal: options.signal });
  }
}

/** Looks at every status and knows when to give up. */
class Watch {
  private readonly deadline: number;
  private readonly patienceMs: number;
  private readonly seen: { last?: ContextStatus; movement: string; movedAt: number; onItsWay: boolean };

  constructor(
    private readonly context: string,
    private readonly goal: Goal,
    private readonly options: FollowOptions,
  ) {
    this.deadline = Date.now() + options.timeoutMs;
    this.patienceMs = options.patienceMs ?? PATIENCE_MS;
    this.seen = { movement: '', movedAt: Date.now(), onItsWay: false };
  }

  /** True at the goal. */
  sees(status: ContextStatus): boolean {
    const { context, goal, seen } = this;
    seen.last = status;
    const { stage, doing, blocked, backfill, gates } = status;
    const movement = JSON.stringify([stage, doing, blocked, backfill, gates]);
    if (movement !== seen.movement) [seen.movement, seen.movedAt] = [movement, Date.now()];
    this.options.onStatus(status);
    if (arrived(status, goal)) return true;
    if (status.target === goal.stage) seen.onItsWay = true;
    else if (seen.onItsWay) {
      const last = status.transitions[0];
      const why = last ? ` (last: ${last.from} -> ${last.to}, by ${last.actor}: ${last.reason})` : '';
      const detail = `${context} goes to ${status.target} now and not to ${goal.stage}${why}:`;
      throw new CommandError('REFUSED', detail, `banyan status ${context} says more.`);
    }
    if (status.frozen)
      throw new CommandError(
        'BLOCKED',
        `${context} is frozen in ${stage}:`,
        `banyan freeze ${context} --off lets it go on.`,
      );
    this.checkTime();
    return false;
  }

  overdue(): boolean {
    return this.outOfTime || this.outOfPatience;
  }

  /** Throws when nothing can be hoped for any more. */
  checkTime(): void {
    const { context, goal, seen } = this;
    const { blocked, stage = 'where it was', gates = [] } = seen.last ?? {};
    if (this.outOfPatience)
      throw new CommandError(
        'BLOCKED',
        `${context} stays in ${stage}: ${sentence(blocked ?? '')}`,
        `banyan status ${context} says more.`,
      );
    if (!this.outOfTime) return;
    const open = gates.filter(({ ok }) => !ok).map(({ name, reason }) => (reason ? `${name} (${reason})` : name));
    const why = blocked ?? (open.length > 0 ? `it waits for ${open.join(', ')}` : 'it is still on its way');
    const detail = `${context} is in ${stage} and not in ${goal.stage} after ${Math.round(this.options.timeoutMs / 1000)} s: ${sentence(why)}`;
    throw new CommandError('TIMEOUT', detail, `It goes on without you; banyan status ${context} says how far it is.`);
  }

  private get outOfTime(): boolean {
    return Date.now() > this.deadline;
  }

  private get outOfPatience(): boolean {
    const { last, movedAt } = this.seen;
    return Boolean(last?.blocked) && Date.now() - movedAt > this.patienceMs;
  }
}
