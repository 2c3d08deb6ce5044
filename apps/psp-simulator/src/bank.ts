import { randomUUID } from 'node:crypto';

/** What has happened, as the journal keeps it. The bank is what these fold to. */
export type Fact =
  | {
      type: 'authorisation';
      id: string;
      key: string;
      request: string;
      reference: string;
      amount: number;
      currency: string;
      status: 'authorised' | 'declined' | 'requires_action';
      reason?: string;
    }
  | { type: 'challenge'; id: string; outcome: 'authorised' | 'declined'; eventId: string }
  | { type: 'capture'; id: string; key: string; request: string; amount: number }
  | { type: 'void'; id: string; key: string; request: string }
  | { type: 'refund'; id: string; key: string; request: string; amount: number }
  | { type: 'delivered'; eventId: string };

export interface Authorisation {
  id: string;
  reference: string;
  /** Minor units, like every amount here. */
  amount: number;
  currency: string;
  status: 'authorised' | 'declined' | 'requires_action' | 'captured' | 'voided';
  reason?: string;
  /** Was it ever authorised? */
  approved: boolean;
  captured: number;
  refunded: number;
}

export interface Notice {
  eventId: string;
  type: 'payment.authorised' | 'payment.declined';
  providerRef: string;
  reason?: string;
}

interface Totals {
  authorised: number;
  captured: number;
  voided: number;
  refunded: number;
}

/** A request that cannot be done. `at` is the authorisation as it stands, where there is one. */
export class Refusal extends Error {
  constructor(
    readonly status: 404 | 409 | 422,
    message: string,
    readonly at?: Authorisation,
  ) {
    super(message);
  }
}

/** What a card token stands for. `tok_timeout` is charged, but the first answer never comes. */
const outcomes: Record<string, Pick<Extract<Fact, { type: 'authorisation' }>, 'status' | 'reason'>> = {
  tok_ok: { status: 'authorised' },
  tok_timeout: { status: 'authorised' },
  tok_3ds: { status: 'requires_action' },
  tok_declined: { status: 'declined', reason: 'card_declined' },
};

/**
 * The provider's books. The methods that decide answer a fact, or undefined when the same key has done it already;
 * they change nothing: `apply` does, for new facts and for those of the journal alike.
 */
export class Bank {
  readonly #authorisations = new Map<string, Authorisation>();
  readonly #byReference = new Map<string, string[]>();
  readonly #keys = new Map<string, { request: string; id: string }>();
  readonly #undelivered = new Map<string, Notice>();

  authorise(
    key: string,
    ask: { token: string; amount: number; currency: string; reference: string },
  ): Fact | undefined {
    const request = JSON.stringify(ask);
    if (this.#done(key, request)) return undefined;
    const { token, ...rest } = ask;
    const outcome = outcomes[token] ?? { status: 'declined', reason: 'unknown_token' };
    return { type: 'authorisation', id: `auth_${randomUUID()}`, key, request, ...rest, ...outcome };
  }

  capture(key: string, id: string, amount: number): Fact | undefined {
    const request = `capture ${id} ${amount}`;
    if (this.#done(key, request)) return undefined;
    const at = this.get(id);
    if (at.status !== 'authorised') throw new Refusal(409, `The authorisation is ${at.status}`, at);
    if (amount > at.amount) throw new Refusal(409, `Only ${at.amount} is authorised`, at);
    return { type: 'capture', id, key, request, amount };
  }

  void(key: string, id: string): Fact | undefined {
    const request = `void ${id}`;
    if (this.#done(key, request)) return undefined;
    const at = this.get(id);
    if (at.status !== 'authorised' && at.status !== 'requires_action')
      throw new Refusal(409, `The authorisation is ${at.status}`, at);
    return { type: 'void', id, key, request };
  }

  refund(key: string, id: string, amount: number): Fact | undefined {
    const request = `refund ${id} ${amount}`;
    if (this.#done(key, request)) return undefined;
    const at = this.get(id);
    if (at.refunded + amount > at.captured) throw new Refusal(409, `Only ${at.captured - at.refunded} can go back`, at);
    return { type: 'refund', id, key, request, amount };
  }

  challenge(id: string, outcome: 'authorised' | 'declined'): Extract<Fact, { type: 'challenge' }> {
    const at = this.get(id);
    if (at.status !== 'requires_action') throw new Refusal(409, `The authorisation is ${at.status}`, at);
    return { type: 'challenge', id, outcome, eventId: `evt_${randomUUID()}` };
  }

  apply(fact: Fact): void {
    if (fact.type === 'delivered') return void this.#undelivered.delete(fact.eventId);
    if ('key' in fact) this.#keys.set(fact.key, { request: fact.request, id: fact.id });
    if (fact.type === 'authorisation') {
      const { id, reference, amount, currency, status, reason } = fact;
      const approved = status === 'authorised';
      this.#authorisations.set(id, {
        id,
        reference,
        amount,
        currency,
        status,
        reason,
        approved,
        captured: 0,
        refunded: 0,
      });
      this.#byReference.set(reference, [...(this.#byReference.get(reference) ?? []), id]);
      return;
    }
    const at = this.get(fact.id);
    if (fact.type === 'capture') Object.assign(at, { status: 'captured', captured: fact.amount });
    if (fact.type === 'refund') at.refunded += fact.amount;
    if (fact.type === 'void') at.status = 'voided';
    if (fact.type === 'challenge') {
      const declined = fact.outcome === 'declined' && { reason: 'challenge_failed' };
      Object.assign(at, { status: fact.outcome, approved: !declined, ...declined });
      const { eventId } = fact;
      this.#undelivered.set(eventId, { eventId, type: `payment.${fact.outcome}`, providerRef: at.id, ...declined });
    }
  }

  /** The authorisation that a key was used on. */
  ofKey(key: string): Authorisation {
    return this.get(this.#keys.get(key)?.id ?? '');
  }

  get(id: string): Authorisation {
    const found = this.#authorisations.get(id);
    if (!found) throw new Refusal(404, 'There is no such authorisation');
    return found;
  }

  ofReference(reference: string): Authorisation {
    return this.get(this.#byReference.get(reference)?.at(-1) ?? '');
  }

  /** Challenges that nobody has answered. */
  open(): Authorisation[] {
    return [...this.#authorisations.values()].filter(({ status }) => status === 'requires_action');
  }

  undelivered(): Notice[] {
    return [...this.#undelivered.values()];
  }

  /** Sums per currency, and the references that were charged more than once: there must be none. */
  stats(): { authorisations: number; totals: Record<string, Totals>; duplicates: string[] } {
    const totals: Record<string, Totals> = {};
    const charged = new Map<string, number>();
    for (const { approved, status, amount, currency, captured, refunded, reference } of this.#authorisations.values()) {
      const sum = (totals[currency] ??= { authorised: 0, captured: 0, voided: 0, refunded: 0 });
      if (!approved) continue;
      charged.set(reference, (charged.get(reference) ?? 0) + 1);
      sum.authorised += amount;
      sum.captured += captured;
      sum.refunded += refunded;
      if (status === 'voided') sum.voided += amount;
    }
    const duplicates = [...charged].filter(([, times]) => times > 1).map(([reference]) => reference);
    return { authorisations: this.#authorisations.size, totals, duplicates };
  }

  #done(key: string, request: string): boolean {
    const done = this.#keys.get(key);
    if (done && done.request !== request) throw new Refusal(422, 'The Idempotency-Key was used for another request');
    return done !== undefined;
  }
}
