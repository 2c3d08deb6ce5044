export {
  type ResilientHttp,
  type ResilientHttpOptions,
  type UpstreamAnswer,
  type UpstreamCall,
  resilientHttp,
} from './resilient-http.js';
export { neverConnected } from './never-connected.js';
export { UpstreamFailure, type UpstreamReason } from './upstream-failure.js';
