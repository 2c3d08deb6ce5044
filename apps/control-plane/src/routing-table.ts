import { EventEmitter } from 'node:events';
import { isDeepStrictEqual } from 'node:util';
import { Logger } from '@nestjs/common';
import { ContextRouting, type Endpoints, type Routing } from '@banyan/extraction';
import type { ControlStore } from './control-store.js';

/** Revisions taken from the database at a time: a push then waits for no disk. */
const BLOCK = 1_000;

/**
 * What the routers are told. Revisions only grow, over restarts and over control planes that take over from one
 * another, so a router never goes back to an older state.
 */
export class RoutingTable {
  private readonly log = new Logger('RoutingTable');
  private readonly events = new EventEmitter();
  private contexts: Record<string, ContextRouting> = {};
  private revision = 0;
  private left = 0;
  private taking: Promise<void> | undefined;
  private saving: Promise<void> | undefined;
  private unsaved = false;
  private opened = false;

  constructor(
    private readonly store: ControlStore,
    private readonly monolith: Endpoints,
  ) {
    this.events.setMaxListeners(0);
  }

  /**
   * Starts from what was written down last, which may be older than what was told last: so nothing is told before
   * `open`, when the rows have been looked at.
   */
  async start(): Promise<void> {
    const { from, contexts } = await this.store.takeRevisions(BLOCK);
    this.revision = from;
    this.left = BLOCK - 1;
    for (const [context, told] of Object.entries(contexts)) {
      const known = ContextRouting.safeParse(told);
      if (known.success) this.contexts[context] = known.data;
    }
  }

  open(): void {
    this.opened = true;
    this.events.emit('routing', this.current());
  }

  current(): Routing | undefined {
    if (!this.opened) return undefined;
    return { revision: this.revision, monolith: this.monolith, contexts: this.contexts };
  }

  /** Told last about a context. */
  of(context: string): ContextRouting | undefined {
    return this.contexts[context];
  }

  onChange(fn: (routing: Routing) => void): () => void {
    this.events.on('routing', fn);
    return () => void this.events.off('routing', fn);
  }

  /** Tells every router, at once. The same again is not told. */
  async tell(context: string, routing: ContextRouting): Promise<void> {
    if (isDeepStrictEqual(this.contexts[context], routing)) return;
    if (this.left === 0) await this.refill();
    this.left -= 1;
    this.revision += 1;
    this.contexts = { ...this.contexts, [context]: routing };
    if (this.opened) this.events.emit('routing', this.current());
    if (this.left < BLOCK / 10) void this.refill().catch(() => {}); // tried again when it is needed
    this.save();
  }

  /** Tells nothing any more; resolves when what was told is kept. */
  async stop(): Promise<void> {
    this.opened = false;
    await this.saving;
  }

  private refill(): Promise<void> {
    this.taking ??= this.store
      .takeRevisions(BLOCK)
      .then(({ from }) => {
        this.revision = from;
        this.left = BLOCK - 1;
      })
      .finally(() => (this.taking = undefined));
    return this.taking;
  }

  /** Kept so that a new start knows where services answered; routers do not wait for it. */
  private save(): void {
    this.unsaved = true;
    this.saving ??= (async () => {
      while (this.unsaved) {
        this.unsaved = false;
        await this.store.saveRouting(this.contexts).catch((err: unknown) => this.log.warn({ msg: 'not kept', err }));
      }
      this.saving = undefined;
    })();
  }
}
