export { Database, Transaction, type DatabaseOptions, type PoolMetrics, type TransactionOptions } from './database.js';
export { DatabaseModule, InjectDatabase, databaseToken, type DatabaseModuleOptions } from './database.module.js';
export { EmbeddedPostgres, EmbeddedPostgresError, type EmbeddedPostgresOptions } from './embedded-postgres.js';
export {
  DatabaseUnavailableError,
  RetryableTransactionError,
  StatementTimeoutError,
  TransactionAbortedError,
  databaseFailure,
} from './errors.js';
export {
  MigrationError,
  ensureContextDatabases,
  ensureOwnedSchema,
  migrate,
  readMigrations,
  roleOf,
  roleUrl,
  type ContextDatabasesOptions,
  type MigrateOptions,
  type Side,
} from './migrate.js';
