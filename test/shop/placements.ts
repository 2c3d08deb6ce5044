import { contextNames } from '@banyan/testing';

/** Where the contexts run: in the monolith, there but called as if they were elsewhere, or some of them as real services. */
export type PlacementName = 'in-process' | 'loopback' | 'all as services' | `${string} as a service`;

/** Every journey runs in these. */
export const placements: readonly PlacementName[] = ['in-process', 'loopback', 'all as services'];

/** Those that cross every context run with each of them gone, too. */
export const everyPlacement: readonly PlacementName[] = [
  ...placements,
  ...contextNames.map((context) => `${context} as a service` as const),
];

/** The contexts that have left the monolith. */
export function leftIn(placement: PlacementName): readonly string[] {
  if (placement === 'all as services') return contextNames;
  return contextNames.filter((context) => placement === `${context} as a service`);
}
