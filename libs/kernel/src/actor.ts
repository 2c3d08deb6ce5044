import { z } from 'zod';

export const Role = z.enum(['customer', 'staff', 'admin']);
export type Role = z.output<typeof Role>;

/** On whose behalf something happens. Travels in every envelope. */
export const Actor = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('anonymous') }),
  z.strictObject({ kind: z.literal('user'), id: z.uuid(), roles: z.array(Role) }),
  z.strictObject({ kind: z.literal('system'), name: z.string() }),
]);
export type Actor = z.output<typeof Actor>;

export const anonymous: Actor = { kind: 'anonymous' };
export const system = (name: string): Actor => ({ kind: 'system', name });

/** The text that scopes what belongs to an actor (idempotency keys, limits). */
export const actorKey = (actor: Actor): string =>
  actor.kind === 'user' ? `user:${actor.id}` : actor.kind === 'system' ? `system:${actor.name}` : 'anonymous';

/** Does the actor hold one of `roles`? An admin may do what staff may; the system may do anything. */
export function hasRole(actor: Actor, ...roles: Role[]): boolean {
  if (actor.kind === 'system') return true;
  if (actor.kind === 'anonymous') return false;
  return roles.some((role) => actor.roles.includes(role) || (role === 'staff' && actor.roles.includes('admin')));
}
