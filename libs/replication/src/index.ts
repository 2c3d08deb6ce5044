export type { MappedRow, Mapping, RowValues } from './mapping.js';
export { preflight } from './preflight.js';
export {
  dropStream,
  joinStream,
  leaveStream,
  prepareStream,
  type PrepareOptions,
  skipTo,
  targetIsEmpty,
} from './prepare.js';
export { runStream } from './run.js';
export type { Broker, SharedLog } from './shared-log.js';
export type { MessageHandler, RunOptions, StreamProgress, TargetTransaction } from './run-options.js';
export { type StreamState, streamState } from './state.js';
export { ReplicationError, type ReplicationErrorCode } from './errors.js';
export { type Stream } from './stream.js';
export type { Queryable } from './connection.js';
