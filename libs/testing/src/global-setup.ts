import type { TestProject } from 'vitest/node';
import { watchServers } from './server-process.js';
import { startTestServer } from './test-server.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** A superuser's URL of the server that the specs use. */
    adminUrl: string;
  }
}

/** Vitest's globalSetup: one Postgres for the whole run; and who leaves another server running fails it. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const endServers = await watchServers();
  const server = await startTestServer();
  project.provide('adminUrl', server.adminUrl);
  return async () => {
    await server.stop();
    await endServers();
  };
}
