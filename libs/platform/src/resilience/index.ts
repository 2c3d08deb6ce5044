export {
  type ResilientHttp,
  type ResilientHttpOptions,
  type UpstreamAnswer,
  type UpstreamCall,
  resilientHttp,
} from './resilient-http.js';
export { UpstreamFailure, type UpstreamReason } from './upstream-failure.js';
