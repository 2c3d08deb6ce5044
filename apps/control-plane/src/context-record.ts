import type { GateReading, Stage, Transition } from '@banyan/extraction';
import type { Divergence } from '@banyan/extraction/parity';
import type { ContextState, ControlStore, StageChange } from './control-store.js';
import type { Target } from './flags/index.js';

/** Somebody asked for a target: who and why goes into the transitions on the way to it. */
export interface Wish {
  stage: Stage;
  actor: string;
  reason: string;
  force: boolean;
}

/** What is remembered of one context, in memory first: what cannot be written down now is written down later, in order. */
export class ContextRecord {
  private unsaved: StageChange[] = [];
  private past: Transition[] | undefined;
  /** How many were written down. */
  private entered = 0;
  private wish: Wish | undefined;

  constructor(
    private readonly context: string,
    private readonly store: ControlStore,
    private current: ContextState,
  ) {}

  get state(): ContextState {
    return this.current;
  }

  async change(change: Partial<ContextState>): Promise<void> {
    this.current = { ...this.current, ...change };
    await this.store.saveState(this.context, this.current);
  }

  /** The stage as of now; `flush` writes it down, with its transition and its evidence. */
  enter(
    to: Stage,
    by: { actor: string; reason: string; forced: boolean },
    gates: readonly GateReading[],
    divergences: readonly Divergence[],
  ): void {
    const { stage: from, forceTo } = this.current;
    const at = new Date().toISOString();
    this.current = { ...this.current, stage: to, since: at, forceTo: forceTo === to ? null : forceTo };
    this.unsaved.push({ context: this.context, from, to, at, ...by, gates, divergences });
  }

  async flush(): Promise<void> {
    for (let next = this.unsaved[0]; next; next = this.unsaved[0]) {
      await this.store.enter(next, { ...this.current, stage: next.to, since: next.at });
      this.unsaved.shift();
      this.past = undefined;
      this.entered += 1;
    }
  }

  /** The last ten, the newest first, those that are not written down yet included. */
  async transitions(): Promise<Transition[]> {
    while (!this.past) {
      const { entered } = this;
      const past = await this.store.transitions(this.context);
      // Another one may have been written down meanwhile.
      if (entered === this.entered) this.past = past;
    }
    const fresh = this.unsaved.map(({ at, from, to, actor, reason }) => ({ at, from, to, actor, reason }));
    return [...fresh.reverse(), ...this.past].slice(0, 10);
  }

  /** `set` puts the wish into the flags; what they say then was asked for by this one. */
  async wishFor(wish: Wish, set: () => Promise<void>): Promise<void> {
    this.wish = wish;
    try {
      await set();
    } catch (error) {
      this.wish = undefined;
      throw error;
    }
  }

  /** Takes over what the flags say; a context without flags keeps its target. Answers whether it has another stage to go to. */
  async follow(flag: Target | undefined): Promise<boolean> {
    const { target: before, percent: share } = this.current;
    const target = flag?.stage ?? before;
    const percent = flag?.percent ?? share;
    const wish = this.wish?.stage === target ? this.wish : undefined;
    if (target === before && percent === share && !wish) return false;
    if (wish) {
      this.wish = undefined;
      const { actor, reason, force } = wish;
      await this.change({ target, percent, actor, reason, forceTo: force ? target : null });
    } else if (target !== before) {
      const reason = `the flag extraction.${this.context} says so`;
      await this.change({ target, percent, actor: 'flag', reason, forceTo: null });
    } else await this.change({ percent });
    return target !== before;
  }
}
