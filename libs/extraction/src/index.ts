export { ContextRouting, Endpoints, Routing } from './routing.js';
export { Side, Stage, reached, stages, stepTowards } from './stage.js';
export { ContextStatus, GateReading, Transition } from './status.js';
