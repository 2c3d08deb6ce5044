export { AccessLog } from './access-log.js';
export { type BanyanProxy, routesOfContracts, startBanyanProxy } from './banyan.js';
export { BadFile, type ProxyFile, parseFile } from './config-file.js';
export { Directory, type RouteRule, type RoutingSource } from './directory.js';
export type { Limits } from './edge.js';
export { Proxy, type ProxyOptions, defaultLimits } from './proxy.js';
export { RedisTokens } from './shared-tokens.js';
export { type StandaloneProxy, startStandalone } from './standalone.js';
