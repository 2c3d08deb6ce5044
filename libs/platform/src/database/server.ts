/* The server and the databases on it, for those who run them and ask them nothing: without Nest and Prisma. */
export {
  EmbeddedPostgres,
  EmbeddedPostgresError,
  type EmbeddedPostgresOptions,
  serverSettings,
} from './embedded-postgres.js';
export { ensureContextDatabases, type ContextDatabasesOptions, roleUrl } from './migrate.js';
