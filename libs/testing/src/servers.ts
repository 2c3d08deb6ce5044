/* The engines alone, for programs that are no specs: this door needs no Vitest. */
export { freePort } from './free-port.js';
export { startNats } from './nats-server.js';
export { startRedis } from './redis-server.js';
export { type ServerProcess } from './server-process.js';
export { type UnleashServer, startUnleash } from './unleash-server.js';
