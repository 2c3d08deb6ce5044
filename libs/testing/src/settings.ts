import { join } from 'node:path';

/* The one place where specs learn about their surroundings; everything else gets it from here. */

export const projectRoot = join(import.meta.dirname, '..', '..', '..');
export const migrationsDir = join(projectRoot, 'migrations');
/** State of the Postgres that all test runs of this checkout share. */
export const testStateDir = join(projectRoot, '.banyan', 'test');
/** An existing server to test on (a superuser's URL), instead of the embedded one. */
export const testDatabaseUrl = process.env.BANYAN_TEST_DATABASE_URL;
