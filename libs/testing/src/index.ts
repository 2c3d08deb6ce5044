export { CancellingOrders, cancellingOrders } from './cancelling-orders.js';
export { type AppAnswer, type AppRequest, type ContextApp, type ContextAppOptions, contextApp } from './context-app.js';
export { type Engine, engine } from './engines.js';
export { eventually } from './eventually.js';
export { freePort } from './free-port.js';
export { amidLateCommits } from './late-commits.js';
export { type NatsServer, startNats } from './nats-server.js';
export { type PspProcess, type PspStats, startPsp } from './psp-process.js';
export { startRedis } from './redis-server.js';
export { migrationsDir, projectRoot } from './settings.js';
export {
  type TestDatabase,
  type TestDatabaseOptions,
  contextNames,
  createTestDatabase,
  testDatabase,
} from './test-database.js';
export { type TestServer, startTestServer } from './test-server.js';
export { type ServerProcess } from './server-process.js';
export { type UnleashServer, startUnleash } from './unleash-server.js';
