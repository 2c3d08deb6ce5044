/* The engines alone, for programs that are no specs: this door needs no Vitest. */
export { freePort } from './free-port.js';
export { type NatsServer, startNats } from './nats-server.js';
export { type RedisServer, startRedis } from './redis-server.js';
export { type UnleashServer, startUnleash } from './unleash-server.js';
