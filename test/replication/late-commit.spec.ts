import { join } from 'node:path';
import { streamName } from '@banyan/extraction/protocol';
import { EmbeddedPostgres, ensureContextDatabases } from '@banyan/platform/database';
import { prepareStream, streamState } from '@banyan/replication';
import { eventually, migrationsDir, projectRoot } from '@banyan/testing';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { BridgeProcess } from './bridge-process.js';
import { Pair } from './pair.js';

/*
 * On a server of its own, because a standby is a setting of a whole server. A commit that waits for one that does not exist
 * is in the log, and so with the bridge, and not visible to anybody: the moment between the two, made long.
 */
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
  const noStandby = async () => {
    await pair.on('monolith', 'alter system reset synchronous_standby_names');
    await pair.on('monolith', 'select pg_reload_conf()');
  };
  await prepareStream(stream, { backfill: true });
  await bridge.start();
  await eventually(async () => (await streamState(stream)).backfill?.done);

  await pair.on('monolith', `alter system set synchronous_standby_names = 'nobody'`);
  await pair.on('monolith', 'select pg_reload_conf()');
  const closer = new pg.Client({ connectionString: pair.urls.monolith });
  await closer.connect();
  try {
    await eventually(
      async () => (await pair.on('monolith', 'show synchronous_standby_names'))[0]?.['synchronous_standby_names'],
    );
    const closing = closer.query(`select shipping.banyan_close(1, 'service')`);
    // The bridge has met the message, and waits behind whoever is closing.
    await eventually(
      async () =>
        (await pair.on('monolith', `select from pg_locks where locktype = 'advisory' and not granted`)).length,
    );
    expect([await isOpen('monolith'), await isOpen('service')]).toEqual([true, false]);
    await noStandby();
    await closing;
    await eventually(() => isOpen('service'));
    expect(await isOpen('monolith')).toBe(false);
  } finally {
    await noStandby();
    await closer.end();
  }
});
