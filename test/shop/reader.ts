import { type TestDatabase, createTestDatabase } from '@banyan/testing';
import { inject } from 'vitest';

const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/**
 * One database to look into all contexts with one statement, wherever each is owned: its schemas are the owners' tables,
 * reached through postgres_fdw.
 */
export async function openReader(owners: ReadonlyMap<string, TestDatabase>): Promise<TestDatabase> {
  const reader = await createTestDatabase(inject('adminUrl'), { contexts: [] });
  try {
    await reader.admin('create extension postgres_fdw');
    for (const [context, database] of owners) {
      const url = new URL(database.adminUrl);
      const host = url.searchParams.get('host') ?? url.hostname;
      const [user, password] = [decodeURIComponent(url.username), decodeURIComponent(url.password)];
      await reader.admin(`
        create server ${context} foreign data wrapper postgres_fdw
          options (host ${quoted(host)}, port ${quoted(url.port || '5432')}, dbname ${quoted(url.pathname.slice(1))});
        create user mapping for current_user server ${context} options (user ${quoted(user)}, password ${quoted(password)});
        create schema ${context};
        import foreign schema ${context} from server ${context} into ${context}`);
    }
    return reader;
  } catch (error) {
    await reader.drop().catch(() => {});
    throw error;
  }
}
