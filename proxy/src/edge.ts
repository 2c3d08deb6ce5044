import type { Canary } from '@banyan/extraction/flags';
import type { Figures, Mirror, ReadOperations } from '@banyan/extraction/parity';
import type { AccessLog } from './access-log.js';
import type { Directory } from './directory.js';
import type { Origins } from './headers.js';
import type { Meters } from './meters.js';
import type { Sweep } from './sweep.js';
import type { WriteMemory } from './who.js';

/** Times in ms, sizes in bytes. */
export interface Limits {
  /** For the head of a request to arrive. */
  headersMs: number;
  /** For the rest of it, and for the answer's head; then for each silence within an answer. */
  requestMs: number;
  /** Instead of `requestMs` for uploads. */
  uploadMs: number;
  /** For the first byte of a canary's answer to a read: then the monolith serves it. */
  candidateMs: number;
  /** A command waits this long for its context to have an owner again. */
  holdMs: number;
  /** A longer declared body is refused, uploads excepted. What comes in chunks is for the upstream to bound. */
  bodyBytes: number;
  connections: number;
  requestsPerSocket: number;
  /** How long running requests may take once the proxy has been asked to stop. */
  drainMs: number;
}

/** What every request needs. */
export interface Edge {
  readonly directory: Directory;
  readonly limits: Limits;
  readonly memory: WriteMemory;
  readonly origins: Origins;
  readonly sweep: Sweep;
  readonly figures: Figures;
  readonly mirror: Mirror;
  readonly operations: ReadOperations;
  readonly meters: Meters;
  readonly access: AccessLog;
  /** Replaced when the percentages of a file change. */
  canary: Canary;
  /** Say in each answer who served it? */
  servedBy: boolean;
  /** No new connections, and the last answer on each. */
  closing: boolean;
}
