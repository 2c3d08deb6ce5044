export { Bus } from './bus.js';
export { type DeadLetter, deadLetters, redrive } from './dead-letters.js';
export { HoldsSaga, InjectClient, Job, On, Serves, Subscribes, clientToken } from './decorators.js';
export { edge, parsePlacement } from './edge.js';
export type { Envelope, EventEnvelope, Receipt, Reply } from './envelope.js';
export { CONTEXT_BEHIND, CONTEXT_MOVED, CONTEXT_UNREACHABLE } from './failures.js';
export type {
  CallOptions,
  Client,
  CommandContext,
  EventOf,
  Handlers,
  JobContext,
  Preparations,
  QueryContext,
} from './handlers.js';
export { Jobs } from './jobs.js';
export { KeptAnswers } from './kept-answers.js';
export { LoopbackPlacement } from './loopback.js';
export { MessagingModule, type MessagingOptions } from './messaging.module.js';
export {
  type Address,
  type Decision,
  type Kind,
  type Peers,
  type Placement,
  type RemoteTransport,
  type WayIn,
  type Whereabouts,
  allLocal,
} from './placement.js';
export { Receiver } from './receiver.js';
export { type SagaDefinition, type SagaStep, type StepResult, defineSaga, done, wait } from './saga.js';
export { Sagas } from './sagas.js';
export { type CallScope, currentScope, newScope, runInScope } from './scope.js';
