export {
  type Canary,
  CanaryFlags,
  type Caller,
  canaryFlagsFrom,
  flagServerFrom,
  gradualRollout,
  staticCanary,
  unleashApi,
} from './canary.js';
export { Flag, type FlagStrategy, rolloutOf } from './flag.js';
export { FlagClient } from './flag-client.js';
export type { FlagServer } from './last-known-flags.js';
export { FLAG_PREFIX, canaryFlag, targetFlag } from './names.js';
