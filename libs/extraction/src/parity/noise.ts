import type { Difference } from './compare.js';
import { maskPath } from './mask.js';

/** Seen less often than this, or in a smaller share of the runs, it was a write between the two questions. */
const SIGHTINGS = 3;
const SHARE = 0.2;
/** Until one side has been asked twice so often, an operation's first differences are reason to do so at once. */
const ENOUGH_RUNS = 10;
const MAX_PLACES = 200;

interface Runs {
  runs: number;
  places: Map<string, number>;
}

/** A kind of difference at a place: a field that changes by itself is noise, the same field missing is not. */
const placeOf = ({ kind, path }: Difference): string => `${kind} ${maskPath(path)}`;

/** What differs when one and the same side is asked twice: it says nothing about the other side. */
export class Noise {
  readonly #operations = new Map<string, Runs>();

  /** The outcome of one A/A: the differences of a side from itself. */
  learn(operation: string, differences: readonly Difference[]): void {
    let known = this.#operations.get(operation);
    if (!known) this.#operations.set(operation, (known = { runs: 0, places: new Map() }));
    known.runs += 1;
    for (const place of new Set(differences.map(placeOf)))
      if (known.places.has(place) || known.places.size < MAX_PLACES)
        known.places.set(place, (known.places.get(place) ?? 0) + 1);
  }

  isNew(operation: string): boolean {
    return (this.#operations.get(operation)?.runs ?? 0) < ENOUGH_RUNS;
  }

  /** The differences that are not known as noise; `also` holds what the side differed in from itself just now. */
  without(operation: string, differences: readonly Difference[], also: readonly Difference[] = []): Difference[] {
    const known = this.#operations.get(operation);
    const now = new Set(also.map(placeOf));
    return differences.filter((difference) => {
      const place = placeOf(difference);
      const seen = known?.places.get(place) ?? 0;
      return !now.has(place) && (seen < SIGHTINGS || seen < SHARE * known!.runs);
    });
  }
}
