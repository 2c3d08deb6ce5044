export { type GateLimits, type Readings, defaultLimits, gatesTo, paritySummary, upperBound } from './gates.js';
export { ContextRouting, Endpoints, Routing } from './routing.js';
export { ExtractionPlacement, type PlacementOptions, type RoutingSource } from './placement.js';
export { RoutingFollower, type RoutingFollowerOptions } from './routing-follower.js';
export { Side, Stage, reached, stages, stepTowards } from './stage.js';
export { ContextStatus, GateReading, Transition } from './status.js';
