import { DomainError } from '@banyan/kernel';

/** What is kept, and for how long. */
export interface Kept<T = never> {
  /** Names the value, for every process: `<context>/<what>/<which>`. */
  key: string;
  /** Sets of values that are forgotten together, such as all lists: forgetting one of them forgets the value. */
  groups?: readonly string[];
  /** So long it is taken for true, ms. What changed is forgotten at once; this bounds what a lost message can do. */
  freshMs: number;
  /** So much longer it is good enough when the load fails, ms. */
  staleMs: number;
  /** Is this value worth keeping? By default any is. */
  keepIf?: (value: T) => boolean;
}

/** What is not true any more. */
export interface Forgotten {
  keys?: readonly string[];
  groups?: readonly string[];
}

/**
 * Values that are the same for whoever asks. They are JSON, and shared: nobody changes what he is given.
 * What every implementation keeps: a load that began before something was forgotten is never kept; and with a value that
 * is old but not forgotten, a load that fails is made good by it, unless the failure is an answer (a DomainError that is
 * not `unavailable`).
 */
export abstract class Cache {
  /** What is kept under the key, or else what `load` gives, which is run once for all who ask meanwhile. */
  abstract through<T>(kept: Kept<T>, load: () => Promise<T>): Promise<T>;

  /** From here on, in this process, and a moment later in the others. Never rejects. */
  abstract forget(what: Forgotten): Promise<void>;

  abstract close(): void;
}

/** Keeps nothing. One process is fast enough without; several would have to tell each other what to forget. */
export const noCache: Cache = {
  through: (_, load) => load(),
  forget: async () => {},
  close: () => {},
};

/** Is this failure no answer? Then an old value is better. */
export const isOutage = (error: unknown): boolean => !DomainError.is(error) || error.kind === 'unavailable';
