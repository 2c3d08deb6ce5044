import { type ConsistencyTokens, type Side } from '@banyan/kernel';
import type { Admitted } from './admission.js';
import type { ContextState } from './directory.js';
import type { Edge } from './edge.js';
import { sideOfRead } from './placement.js';
import { type Who, whoAsks } from './who.js';

/** Who has sent a request, and what is known of him here and in other proxies. Made only when that matters. */
export class Caller {
  readonly #who: Who;
  #tokens: ConsistencyTokens | undefined;
  #asked = false;
  /** The other proxies could not say: what he has written may be missing in any copy, and only the owner is safe. */
  #blind = false;

  constructor(
    private readonly edge: Edge,
    private readonly admitted: Admitted,
  ) {
    this.#who = whoAsks(admitted);
  }

  /** Asks the other proxies, once, what they have given to him. Undefined: there is nothing to wait for. */
  catchUp(): Promise<void> | undefined {
    if (this.#asked) return undefined;
    this.#asked = true;
    return this.edge.memory.catchUp(this.#who)?.then((known) => {
      this.#blind = !known;
      this.#tokens = undefined;
    });
  }

  /** What his reads must not be older than, sent or remembered; undefined: nothing is known. */
  get tokens(): ConsistencyTokens | undefined {
    this.#tokens ??= this.edge.memory.recall(this.#who, this.admitted.consistency);
    for (const _ in this.#tokens) return this.#tokens;
    return undefined;
  }

  /** Where there are other proxies: resolves when they know it too, as far as that is possible. */
  remember(token: string): Promise<void> | undefined {
    return this.edge.memory.remember(this.#who, token);
  }

  isCandidate(context: string): boolean {
    return !this.#blind && this.edge.canary.isService(context, this.#who);
  }

  /** Decided once, here: it travels with the request, and every bus behind obeys it. `side` has the request itself. */
  placement(state: ContextState, side: Side, tokens: ConsistencyTokens | undefined): string {
    let text = '';
    for (const each of this.edge.directory.canaries) {
      const { context } = each;
      const decided = context === state.context && this.admitted.reads;
      const candidate = !decided && this.isCandidate(context);
      const placed = decided ? side : sideOfRead(each, { candidate, token: tokens?.[context] });
      text += `${text && ', '}${context}=${placed}`;
    }
    return text;
  }
}
