import { setTimeout as sleep } from 'node:timers/promises';
import { logStream } from '@banyan/messaging/nats';
import { streamName } from '@banyan/extraction/protocol';
import { type Stream, prepareStream } from '@banyan/replication';
import { type ServerProcess, eventually, startNats } from '@banyan/testing';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { BridgeProcess, throughNats } from './bridge-process.js';
import { Pair } from './pair.js';

let pair: Pair;
let nats: ServerProcess;
let bridge: BridgeProcess;
beforeAll(async () => {
  pair = await Pair.on(inject('adminUrl'));
  nats = await startNats({ config: 'max_payload: 65536' });
  bridge = new BridgeProcess(pair, 'midst', throughNats(nats));
});
afterAll(async () => {
  await bridge?.stop();
  await pair?.drop();
  await nats?.stop();
});

it('ends in order in the middle of a transaction that goes in parts, and goes on with it at the next start', async () => {
  await pair.onBoth(`
    create schema midst;
    create table midst.banyan_owner (side text, open boolean, epoch bigint);
    create table midst.t (id int primary key, v text);
  `);
  await pair.on('monolith', `insert into midst.banyan_owner values ('monolith', true, 1)`);
  await pair.on('service', `insert into midst.banyan_owner values ('service', false, 0)`);
  const { monolith, service } = pair.urls;
  const stream: Stream = {
    name: streamName('midst', 'monolith', monolith),
    source: monolith,
    target: service,
    schema: 'midst',
  };
  await prepareStream(stream, { backfill: false });
  await bridge.start();

  const connection = await connect({ servers: nats.url });
  try {
    const manager = await jetstreamManager(connection);
    const name = logStream('midst', 'monolith');
    /** How many parts of a transaction that is not over are in NATS; 0 when none is. */
    const parts = async () => {
      const { state } = await manager.streams.info(name);
      const last = await manager.streams.getMessage(name, { seq: state.last_seq });
      const [, to, part] = last!.header.get('Banyan-Log').split(' ');
      return to === '-' ? Number(part) + 1 : 0;
    };
    // Some 30 MB, and 64 kB a message.
    await pair.on(
      'monolith',
      `insert into midst.t select i, repeat(md5(i::text), 30) from generate_series(1, 30000) i`,
    );
    await eventually(async () => (await parts()) > 5, { intervalMs: 1 });
    const goOn = nats.pause();
    const ended = bridge.stop('SIGTERM');
    await sleep(200); // the signal is there before the next part is
    goOn();
    expect(await ended).toBe(0);
    expect(await parts()).toBeGreaterThan(0);
    expect(await pair.on('service', 'select from midst.t')).toEqual([]);
    await bridge.start();
    const sums = await pair.sums('monolith', 'midst', ['t']);
    await eventually(async () => expect(await pair.sums('service', 'midst', ['t'])).toEqual(sums), {
      timeoutMs: 30_000,
    });
  } finally {
    await connection.close();
  }
}, 60_000);
