import type { Side } from '@banyan/kernel';
import type { ContextState } from './directory.js';
import type { Edge } from './edge.js';
import { otherSide, sideOfCommand } from './placement.js';

/** A fence that refused and no news about a new owner: after this the other side is tried. The database decides. */
const NEWS_MS = 100;

/** A hand-over takes less. After this the control plane may have died in the middle, and the owner that it told of is tried. */
const BELIEVED_MS = 400;

/** The command that waits. */
export interface Command {
  /** Decides anew where it goes. */
  place(): void;
  /** Sends it there, whatever is said about the owner. */
  sendTo(side: Side, state: ContextState): void;
  /** It has waited long enough. */
  giveUp(): void;
  /** Runs what a timer or news have set off, unless the command is over. */
  guarded(step: () => void): void;
}

/** A command whose context has no owner just now, or not the one that it was sent to. Made when that happens. */
export class OwnerWait {
  readonly #until: number;
  /** A state that says that the owner is changing, and has said so for too long. */
  #disbelieved: ContextState | undefined;
  #stop: (() => void) | undefined;

  constructor(
    private readonly edge: Edge,
    private readonly context: string,
    private readonly command: Command,
  ) {
    this.#until = performance.now() + edge.limits.holdMs;
  }

  /** Is there time left? */
  get open(): boolean {
    return performance.now() < this.#until;
  }

  believes(state: ContextState): boolean {
    return state !== this.#disbelieved;
  }

  /** The owner is changing: wait for the new one. */
  hold(): void {
    const { command, context, edge } = this;
    const left = this.#until - performance.now();
    if (left <= 0) return command.giveUp();
    edge.meters.happened('held', context);
    this.#wait(
      context,
      Math.min(BELIEVED_MS, left),
      (state) => !state.holding,
      (changed) => {
        if (!changed && left <= BELIEVED_MS) return command.giveUp();
        if (!changed) this.#disbelieved = edge.directory.context(context);
        command.place();
      },
    );
  }

  /** `side` refused the command, placed by `before`, before it ran. Somebody else owns `context`, or will in a moment. */
  fenced(side: Side, context: string, before: ContextState): void {
    const { command, edge } = this;
    edge.meters.happened('fenced', this.context);
    const left = Math.min(NEWS_MS, this.#until - performance.now());
    if (context !== this.context) {
      // Something further in was refused: the same way once more, when there is news, or in a while.
      return this.#wait(
        context,
        left,
        () => true,
        () => command.place(),
      );
    }
    const isNews = (state: ContextState | undefined): boolean =>
      !state || (state !== before && (state.holding || sideOfCommand(state) !== side));
    if (isNews(edge.directory.context(context))) return command.place();
    this.#wait(context, left, isNews, (changed) => {
      const state = edge.directory.context(context);
      if (!state || changed || (state.holding && this.believes(state))) return command.place();
      // No news: perhaps the control plane is away. The fence makes a wrong guess harmless.
      command.sendTo(state.service ? otherSide(side) : 'monolith', state);
    });
  }

  stop(): void {
    this.#stop?.();
  }

  /** Until the state of `context` is as wanted (true), or `ms` are over (false). */
  #wait(context: string, ms: number, wanted: (state: ContextState) => boolean, then: (changed: boolean) => void): void {
    const { directory } = this.edge;
    const done = (changed: boolean): void => {
      this.stop();
      this.command.guarded(() => then(changed));
    };
    const timer = setTimeout(done, Math.max(1, ms), false);
    const unlisten = directory.onChange(() => {
      const state = directory.context(context);
      if (state === undefined || wanted(state)) done(true);
    });
    this.#stop = () => {
      this.#stop = undefined;
      clearTimeout(timer);
      unlisten();
    };
  }
}
