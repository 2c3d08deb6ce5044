import { join } from 'node:path';
import { streamName } from '@banyan/extraction/protocol';
import { EmbeddedPostgres, ensureContextDatabases } from '@banyan/platform/database';
import { prepareStream, streamState } from '@banyan/replication';
import { amidLateCommits, eventually, migrationsDir, projectRoot } from '@banyan/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { BridgeProcess } from './bridge-process.js';
import { Pair } from './pair.js';

/* A commit is in the log, and so with the bridge, a moment before anybody can see it: here that moment is long. */
let server: EmbeddedPostgres;
let pair: Pair;
let bridge: BridgeProcess;

beforeAll(async () => {
  server = await EmbeddedPostgres.start({
    stateDir: join(projectRoot, '.banyan', 'test-late-commit'),
    port: 54_336,
    shared: true,
    settings: ['fsync=off', 'synchronous_commit=local'],
  });
  pair = await Pair.on(server.url);
  for (const side of ['monolith', 'service'] as const)
    await ensureContextDatabases({ adminUrl: pair.urls[side], contexts: ['shipping'], side, migrationsDir });
  bridge = new BridgeProcess(pair, 'shipping');
});
afterAll(async () => {
  await bridge?.stop();
  await pair?.drop();
  await server?.stop();
});

it('opens the other side although it reads of the closing before anybody can see it', async () => {
  const stream = {
    name: streamName('shipping', 'monolith', pair.urls.monolith),
    source: pair.urls.monolith,
    target: pair.urls.service,
    schema: 'shipping',
  };
  const isOpen = async (side: 'monolith' | 'service') =>
    (await pair.on<{ open: boolean }>(side, 'select open from shipping.banyan_owner'))[0]!.open;
  await prepareStream(stream, { backfill: true });
  await bridge.start();
  await eventually(async () => (await streamState(stream)).backfill?.done, { timeoutMs: 30_000 });

  await amidLateCommits(
    (text) => pair.on('monolith', text),
    async (release) => {
      const closing = pair.on('monolith', `select shipping.banyan_close(1, 'service')`);
      // The bridge has met the message, and waits behind whoever is closing.
      const waits = `select from pg_locks where locktype = 'advisory' and not granted`;
      await eventually(async () => (await pair.on('monolith', waits)).length > 0, { timeoutMs: 20_000 });
      expect([await isOpen('monolith'), await isOpen('service')]).toEqual([true, false]);
      await release();
      await closing;
      await eventually(() => isOpen('service'), { timeoutMs: 20_000 });
      expect(await isOpen('monolith')).toBe(false);
    },
  );
}, 120_000);
