import { type Actor, DomainError, type Side, formatTokens, parseTokens } from '@banyan/kernel';
import { CONTEXT_BEHIND, CONTEXT_MOVED } from './failures.js';
import { currentScope, newScope, runInScope } from './scope.js';

interface EdgeRequest {
  headers: Readonly<Record<string, string | string[] | undefined>>;
}

const textOf = (header: string | string[] | undefined): string | undefined =>
  typeof header === 'string' ? header : header?.join(',');

const PLACED = /^\s*([a-z][a-z0-9-]{0,62})=(monolith|service)\s*$/;

/** Reads `Banyan-Placement: inventory=service, catalog=monolith`. What cannot be read is left out. */
export function parsePlacement(header: string | undefined): Record<string, Side> | undefined {
  if (!header) return undefined;
  const placement: Record<string, Side> = {};
  for (const part of header.split(',', 32)) {
    const [, context, side] = PLACED.exec(part) ?? [];
    if (context) placement[context] = side as Side;
  }
  return placement;
}

/**
 * What every HTTP host gives to `createHttpApp`: handlers run in a scope that acts for the request's actor, ends when
 * nobody waits any more, and carries what the edge has decided and what the caller has written; and the answer says what
 * the request's commands told.
 */
export const edge = (requestTimeoutMs: number) => ({
  requestScope: ({ headers }: EdgeRequest, actor: Actor, next: () => Promise<unknown>): Promise<unknown> => {
    const scope = newScope(actor, Date.now() + requestTimeoutMs);
    const placement = headers['banyan-placement'];
    const consistency = headers['banyan-consistency'];
    if (placement !== undefined) scope.placement = parsePlacement(textOf(placement));
    if (consistency !== undefined) scope.consistency = parseTokens(textOf(consistency));
    return runInScope(scope, next);
  },
  answerFacts: (error?: unknown) => {
    const seen = currentScope()?.seen;
    if (!seen) return undefined;
    const code = DomainError.is(error) ? error.code : undefined;
    const context = code && (error as DomainError).data?.['context'];
    return {
      replayed: seen.replayed,
      consistency: formatTokens(seen.consistency) || undefined,
      fenced: code === CONTEXT_MOVED && !seen.ran ? String(context) : undefined,
      behind: code === CONTEXT_BEHIND ? String(context) : undefined,
    };
  },
});
