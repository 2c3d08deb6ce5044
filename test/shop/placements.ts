import { contextNames } from '@banyan/testing';

/**
 * Where the contexts run: in the monolith, there but called as if they were elsewhere, or some of them as real services.
 * These reach each other over TCP, or over NATS, with Redis for what they share.
 */
export type PlacementName =
  'in-process' | 'loopback' | 'all as services' | typeof ON_ENGINES | `${string} as a service`;

const ON_ENGINES = 'all as services on NATS and Redis';

/** Every journey runs in these. */
export const placements: readonly PlacementName[] = ['in-process', 'loopback', 'all as services', ON_ENGINES];

/** Those that cross every context run with each of them gone, too. */
export const everyPlacement: readonly PlacementName[] = [
  ...placements,
  ...contextNames.map((context) => `${context} as a service` as const),
];

export const isOnEngines = (placement: PlacementName): boolean => placement === ON_ENGINES;

/** The contexts that have left the monolith. */
export function leftIn(placement: PlacementName): readonly string[] {
  if (placement === 'all as services' || isOnEngines(placement)) return contextNames;
  return contextNames.filter((context) => placement === `${context} as a service`);
}
