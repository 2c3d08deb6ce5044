export { CancellingOrders, cancellingOrders } from './cancelling-orders.js';
export { type AppAnswer, type AppRequest, type ContextApp, type ContextAppOptions, contextApp } from './context-app.js';
export { eventually } from './eventually.js';
export { type PspProcess, type PspStats, startPsp } from './psp-process.js';
export { freePort } from './free-port.js';
export { amidLateCommits } from './late-commits.js';
export { migrationsDir, projectRoot } from './settings.js';
export {
  type TestDatabase,
  type TestDatabaseOptions,
  contextNames,
  createTestDatabase,
  testDatabase,
} from './test-database.js';
export { type TestServer, startTestServer } from './test-server.js';
