import type { Endpoints } from '@banyan/extraction';

export interface Wanted {
  role: 'service' | 'bridge';
  context: string;
  /** Settings on top of those that every process here gets. */
  settings: Record<string, string>;
}

/** Of all instances together. */
export interface ProcessState {
  role: 'service' | 'bridge';
  context: string;
  /** One of them is. */
  ready: boolean;
  /** Why it is not ready; without one it is on its way. */
  error?: string;
  /** Where a service answers: every instance that has an address, also one that is just starting again. */
  endpoints?: Endpoints;
}

/** Where services and bridges run. It keeps alive what is wanted; what it did last holds while nobody asks. */
export abstract class Runtime {
  /** The whole list each time: what is not on it is stopped. Throws when processes cannot be run here. */
  abstract want(list: readonly Wanted[]): void;
  /** Somebody else decides from here on what is wanted. */
  abstract letGo(): void;
  /** What is known of them now. */
  abstract observe(): readonly ProcessState[];
  abstract onChange(fn: () => void): () => void;
  abstract start(): Promise<void>;
  abstract stop(): Promise<void>;
}
