export { type Audit, type AuditEntry, FlagStore, type Target, type TargetChange } from './flag-store.js';
export { FlagsModule, type FlagsOptions } from './flags.module.js';
export { OwnFlags, type OwnFlagsOptions } from './own-flags.js';
export { UnleashFlags, type UnleashFlagsOptions } from './unleash-flags.js';
