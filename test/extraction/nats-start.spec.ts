import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ServerProcess, freePort, startNats } from '@banyan/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { AppProcess } from '../shop/processes.js';

let server: ServerProcess;
let stateDir: string;
beforeAll(async () => {
  stateDir = await mkdtemp(join(tmpdir(), 'banyan-nats-start-'));
  // It would end who takes longer than two seconds to say who he is, and not refuse him.
  const users = '[{ user: "somebody", password: "right" }]';
  server = await startNats({ config: `authorization { timeout: 60, users: ${users} }` });
});
afterAll(async () => {
  await server?.stop();
  await rm(stateDir, { recursive: true });
});

const start = (app: string, env: Record<string, string>) =>
  AppProcess.start(app, {
    PATH: '',
    BANYAN_STATE_DIR: stateDir,
    // NATS is looked at first.
    DATABASE_URL: 'postgres://127.0.0.1:1/none',
    CONTROL_URL: 'http://127.0.0.1:1',
    INTERNAL_PORT: '0',
    ...env,
  });

it.concurrent.each(['monolith', 'control-plane'])(
  '%s ends with one clear line when NATS refuses its user',
  { timeout: 90_000 },
  async (app) => {
    const started = start(app, { NATS_URL: server.url, NATS_USER: app, NATS_PASSWORD: 'wrong-password' });
    await expect(started).rejects.toThrow(
      new RegExp(
        `ended with 1: .*NATS at 127.0.0.1:\\d+ refuses the user ${app}: check NATS_USER and NATS_PASSWORD`,
        's',
      ),
    );
    await expect(started).rejects.not.toThrow(/wrong-password/);
  },
);

it.concurrent('a service ends with one clear line when there is no NATS', { timeout: 90_000 }, async () => {
  const port = await freePort();
  await expect(start('inventory-service', { NATS_URL: `nats://127.0.0.1:${port}` })).rejects.toThrow(
    new RegExp(
      `ended with 1: .*NATS cannot be reached at 127.0.0.1:${port} \\(connection refused\\): check NATS_URL`,
      's',
    ),
  );
});
