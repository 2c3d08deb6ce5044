import type { ConsistencyToken, Side } from '@banyan/kernel';
import type { Address, Decision, Envelope, Kind, Peers, Placement } from '@banyan/messaging';
import type { Database } from '@banyan/platform/database';
import { applied } from './applied.js';
import type { ContextRouting, Routing } from './routing.js';

/** Where the routing state comes from: a `RoutingFollower`. */
export interface RoutingSource {
  current(): Routing | undefined;
  onChange(listener: (routing: Routing) => void): () => void;
}

export interface PlacementOptions {
  /** Whose databases this process has. */
  side: Side;
  /** Of a service: the one context that it serves. */
  context?: string;
  routing: RoutingSource;
  /** The canary flag: does this user read from the service? */
  canary: { isService(context: string, who: { userId?: string; sessionId?: string }): boolean };
  transports: Pick<Peers, 'to'>;
  /** Where the monolith answers while nobody has told yet. */
  monolith: readonly Address[];
}

/** A refused call waits this long for news before it tries the other side, ms: the fence decides, so a guess is harmless. */
const GUESS = 100;

/**
 * A hand-over holds commands for a tenth of a second. Longer than this, and whoever steers it may have died: then the
 * database is asked, which knows, ms.
 */
const HELD = 400;

const HOLD: Decision = { at: 'hold' };
const other = (side: Side): Side => (side === 'monolith' ? 'service' : 'monolith');

type Known = Pick<ContextRouting, 'stage' | 'owner' | 'epoch' | 'holding'>;

/** What this process makes of one context's routing. */
interface View {
  /** The side of the context that is served in this process, if any. */
  readonly here: Side | undefined;
  known: Known;
  heldSince: number;
  /** The epoch at which the fence has let a transaction in here: it may be ahead of what we were told. */
  took: number;
  /** Where to try while what we were told is known to be wrong. */
  guess: Side | undefined;
  refusedBy: Side | undefined;
  /** By side, at the epoch that was told. */
  told: Record<Side, Decision>;
  /** By side, at whatever epoch: for guesses. */
  guessed: Record<Side, Decision>;
  /** A read on the service that the owner makes good. */
  canary: Decision;
  readonly waiting: Set<() => void>;
}

/**
 * The bus's placement once contexts can leave. Every process decides by the same rules: commands, events and jobs follow
 * the owner; a query goes where the edge has decided, or the canary flag, and never to a side that lacks what its
 * caller has written.
 */
export class ExtractionPlacement implements Placement {
  readonly #options: PlacementOptions;
  readonly #views = new Map<string, View>();
  readonly #listeners: ((context: string) => void)[] = [];

  constructor(options: PlacementOptions) {
    this.#options = options;
    options.routing.onChange((routing) => {
      for (const context of new Set([...this.#views.keys(), ...Object.keys(routing.contexts)])) this.#follow(context);
    });
  }

  decide(context: string, kind: Kind, envelope?: Envelope): Decision {
    const view = this.#view(context);
    if (kind === 'query') return this.#read(view, context, envelope);
    const owner = ownerOf(view);
    if (kind === 'job') return owner === view.here && !view.known.holding ? view.told[owner] : HOLD;
    if (view.guess) return view.guessed[view.guess];
    if (view.known.holding && Date.now() - view.heldSince < HELD) return HOLD;
    return owner === view.known.owner ? view.told[owner] : view.guessed[owner];
  }

  /** Resolves at the next news about the context. Without any, whoever was refused tries the other side. */
  changed(context: string, withinMs: number): Promise<void> {
    const view = this.#view(context);
    const held = view.known.holding && !view.guess ? view.heldSince + HELD - Date.now() : 0;
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        view.waiting.delete(wake);
        resolve();
      };
      const withoutNews = () => {
        const tried = view.guess ?? ownerOf(view);
        if (view.refusedBy === tried) view.guess = other(tried);
        wake();
      };
      const timer = setTimeout(withoutNews, Math.max(0, Math.min(withinMs, held > 0 ? held : GUESS)));
      view.waiting.add(wake);
    });
  }

  moved(context: string, refusedBy: Side): void {
    const view = this.#view(context);
    view.refusedBy = refusedBy;
    if (refusedBy === view.here) view.took = 0;
  }

  took(context: string, epoch: number): void {
    const view = this.#view(context);
    if (!view.here || epoch <= view.known.epoch) return;
    view.took = epoch;
    this.#tell(context, view);
  }

  followed(context: string): boolean {
    const { stage } = this.#view(context).known;
    return stage === 'replicate' || stage === 'shadow' || stage === 'canary';
  }

  async caughtUp(db: Database, token: ConsistencyToken): Promise<boolean> {
    const view = this.#view(db.context);
    // The owner has all that was written before it became it.
    if (token.epoch < view.known.epoch && ownerOf(view) === view.here) return true;
    return applied(db, token);
  }

  onChange(listener: (context: string) => void): void {
    this.#listeners.push(listener);
  }

  #read(view: View, context: string, envelope: Envelope | undefined): Decision {
    const { known, here, told } = view;
    // Whoever asks a service for its own data wants that, be it to compare: it must not come from elsewhere.
    if (here === 'service') return told.service;
    const owner = ownerOf(view);
    const token = envelope?.consistency?.[context];
    // The caller knows more than we do.
    if (token && token.epoch > known.epoch && told[token.side].at !== 'hold') return told[token.side];
    const placed = envelope?.placement?.[context] ?? this.#flagged(known, context, envelope);
    if (placed === owner || (token && token.epoch >= known.epoch && !token.lsn)) return told[owner];
    if (placed === 'monolith') return here === 'monolith' ? told.monolith : told[owner];
    return known.stage === 'canary' ? view.canary : told[owner];
  }

  #flagged({ stage, owner }: Known, context: string, envelope: Envelope | undefined): Side {
    if (stage !== 'canary' || envelope?.actor.kind !== 'user') return owner;
    return this.#options.canary.isService(context, { userId: envelope.actor.id }) ? 'service' : 'monolith';
  }

  #view(context: string): View {
    const known = this.#views.get(context);
    if (known) return known;
    const { side, context: own } = this.#options;
    const here: Side | undefined = side === 'monolith' ? 'monolith' : context === own ? 'service' : undefined;
    const fresh = { here, took: 0, guess: undefined, refusedBy: undefined, waiting: new Set<() => void>() };
    const view: View = { ...fresh, ...this.#told(context, here) };
    this.#views.set(context, view);
    return view;
  }

  #follow(context: string): void {
    const view = this.#view(context);
    const before = view.known;
    const { heldSince } = view;
    Object.assign(view, this.#told(context, view.here));
    if (before.holding && view.known.holding) view.heldSince = heldSince;
    const { owner, epoch, holding, stage } = view.known;
    if (before.owner === owner && before.epoch === epoch && before.holding === holding && before.stage === stage)
      return;
    view.guess = view.refusedBy = undefined;
    this.#tell(context, view);
  }

  #tell(context: string, { waiting }: View): void {
    for (const wake of [...waiting]) wake();
    for (const listener of this.#listeners) listener(context);
  }

  #told(context: string, here: Side | undefined): Pick<View, 'known' | 'heldSince' | 'told' | 'guessed' | 'canary'> {
    const { routing, transports, monolith } = this.#options;
    const all = routing.current();
    const told = all?.contexts[context];
    // Nobody has said anything yet: everything is in the monolith, but a service may own what it is there for.
    const known: Known = told ?? { stage: 'monolith', owner: here ?? 'monolith', epoch: 0, holding: false };
    const at = (side: Side, epoch?: number): Decision => {
      if (side === here) return { at: 'local', side, epoch };
      const addresses = side === 'monolith' ? (all?.monolith.rpc ?? monolith) : told?.service?.rpc;
      return addresses ? { at: 'remote', via: transports.to({ context, side, addresses }), side, epoch } : HOLD;
    };
    const epoch = told?.epoch;
    const sides = { monolith: at('monolith', epoch), service: at('service', epoch) };
    const canary =
      sides.service.at === 'remote' ? { ...sides.service, otherwise: sides[known.owner] } : sides[known.owner];
    const guessed = { monolith: at('monolith'), service: at('service') };
    return { known, heldSince: Date.now(), told: sides, guessed, canary };
  }
}

const ownerOf = ({ known, took, here }: View): Side => (here && took > known.epoch ? here : known.owner);
