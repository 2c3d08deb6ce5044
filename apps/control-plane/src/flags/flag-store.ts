import type { Stage } from '@banyan/extraction';

/** Where a context is to be, and the share of its reads, 0 to 100, that canary sends to the service. */
export interface Target {
  stage: Stage;
  percent: number;
}

export interface TargetChange {
  stage: Stage;
  /** Undefined: stays as it is. */
  percent?: number;
  actor: string;
  reason: string | null;
}

/** An entry for the audit log. */
export interface AuditEntry {
  actor: string;
  action: string;
  context: string | null;
  detail: unknown;
  reason: string | null;
}
export type Audit = (entry: AuditEntry) => Promise<void>;

/** What the flags ask for. Flags that are missing, unreachable or senseless change nothing: the last known target holds. */
export abstract class FlagStore {
  /** The last known target by context. A context of which no flag was ever known is absent: it is to stay where it is. */
  abstract targets(): Readonly<Record<string, Target>>;
  /** By context: why the last known target holds, and what to do about it. */
  abstract problems(): Readonly<Record<string, string>>;
  /** Calls `fn` when a target or a problem changed; returns what ends it. */
  abstract onChange(fn: () => void): () => void;
  /** Sets the flags of a context, audits it, and resolves when `targets()` shows it. Throws a DomainError. */
  abstract setTarget(context: string, change: TargetChange): Promise<void>;
  abstract start(): Promise<void>;
  abstract stop(): Promise<void>;
}
