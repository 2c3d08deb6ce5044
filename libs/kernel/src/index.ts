export { Actor, Role, actorKey, anonymous, hasRole, system } from './actor.js';
export { type Clock, systemClock } from './clock.js';
export {
  type ConsistencyToken,
  type ConsistencyTokens,
  type Side,
  formatTokens,
  laterToken,
  lsnNumber,
  parseTokens,
} from './consistency.js';
export {
  type AnyCommand,
  type AnyContract,
  type AnyEvent,
  type AnyOperation,
  type AnyQuery,
  type CommandDef,
  type Contract,
  type Drawn,
  type EventDef,
  type Example,
  type ParityRules,
  type QueryDef,
  command,
  defineContext,
  drawn,
  event,
  query,
} from './context.js';
export { DomainError, type ErrorKind, type InputFault, errorKinds, reasonOf } from './errors.js';
export { Id, derivedId, newId, timeOfId } from './ids.js';
export { Money, addMoney, money, timesMoney } from './money.js';
