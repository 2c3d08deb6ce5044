/** Where a context may run: in the monolith, or in a service of its own. */
export type Side = 'monolith' | 'service';

/**
 * What a write tells its caller, so that a later read can ask for it: who took the write, at which epoch, and where the
 * owner's log stood afterwards. Without `lsn` nobody followed the log at that time: only the owner is sure to have it.
 */
export interface ConsistencyToken {
  side: Side;
  epoch: number;
  /** As Postgres writes it: `16/B374D848`. */
  lsn?: string;
}

/** One token per context: what the `Banyan-Consistency` header carries. */
export type ConsistencyTokens = Readonly<Record<string, ConsistencyToken>>;

/** `inventory=monolith:3:0/16B3748, orders=service:2` */
export function formatTokens(tokens: ConsistencyTokens): string {
  return Object.entries(tokens)
    .map(([context, { side, epoch, lsn }]) => `${context}=${side}:${epoch}${lsn ? `:${lsn}` : ''}`)
    .join(', ');
}

const TOKEN = /^\s*([a-z][a-z0-9-]{0,62})=(monolith|service):(\d{1,15})(?::([0-9A-F]{1,8}\/[0-9A-F]{1,8}))?\s*$/;

/** Reads the header. It comes from clients: what cannot be read is left out, and no more than 32 are looked at. */
export function parseTokens(header: string | undefined): ConsistencyTokens {
  const tokens: Record<string, ConsistencyToken> = {};
  for (const part of (header ?? '').split(',', 32)) {
    const [, context, side, epoch, lsn] = TOKEN.exec(part) ?? [];
    if (context) tokens[context] = { side: side as Side, epoch: Number(epoch), ...(lsn && { lsn }) };
  }
  return tokens;
}

/** The one that asks for more: a later epoch, or the same one further on in the log. */
export function laterToken(a: ConsistencyToken | undefined, b: ConsistencyToken): ConsistencyToken {
  if (!a || b.epoch !== a.epoch) return !a || b.epoch > a.epoch ? b : a;
  if (!a.lsn || !b.lsn) return a.lsn ? b : a;
  return lsnNumber(b.lsn) > lsnNumber(a.lsn) ? b : a;
}

/** A log position as a number that can be compared. */
export function lsnNumber(lsn: string): bigint {
  const [high, low] = lsn.split('/');
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}
