import { once } from 'node:events';
import { type AddressInfo, type Server, type Socket, connect as connectTo, createServer } from 'node:net';
import { logStream } from '@banyan/messaging/nats';
import { streamName } from '@banyan/extraction/protocol';
import { type Stream, prepareStream } from '@banyan/replication';
import { type ServerProcess, eventually, startNats } from '@banyan/testing';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { BridgeProcess, throughNats } from './bridge-process.js';
import { Pair } from './pair.js';

/** Between a bridge and NATS: lets through what the bridge says, or only so many bytes more of it. */
class Gate {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  #left = Infinity;

  constructor(port: number) {
    this.#server = createServer((near) => {
      const far = connectTo(port, '127.0.0.1');
      this.#sockets.add(near);
      near.on('error', () => {}).on('close', () => far.end());
      far.on('error', () => {}).on('close', () => near.destroy());
      far.pipe(near);
      near.on('data', (said) => {
        far.write(said);
        this.#left -= said.length;
        if (this.isShut) near.pause();
      });
    });
  }

  async open(): Promise<string> {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening');
    return `nats://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get isShut(): boolean {
    return this.#left <= 0;
  }

  shutAfter(bytes: number): void {
    this.#left = bytes;
  }

  openAgain(): void {
    this.#left = Infinity;
    for (const socket of this.#sockets) socket.resume();
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

let pair: Pair;
let nats: ServerProcess;
let gate: Gate;
let bridge: BridgeProcess;
beforeAll(async () => {
  pair = await Pair.on(inject('adminUrl'));
  nats = await startNats({ config: 'max_payload: 65536' });
  gate = new Gate(nats.port);
  bridge = new BridgeProcess(pair, 'midst', throughNats({ url: await gate.open() }));
});
afterAll(async () => {
  await bridge?.stop();
  await pair?.drop();
  gate?.close();
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
    const manager = await jetstreamManager(connection, { timeout: 20_000 });
    const name = logStream('midst', 'monolith');
    /** How many parts of a transaction that is not over are in NATS; 0 when none is. */
    const parts = async () => {
      const { state } = await manager.streams.info(name);
      const last = await manager.streams.getMessage(name, { seq: state.last_seq });
      const [, to, part] = last!.header.get('Banyan-Log').split(' ');
      return to === '-' ? Number(part) + 1 : 0;
    };
    // Some 30 MB, and 64 kB a message: shut in the middle of it.
    gate.shutAfter(1 << 20);
    await pair.on(
      'monolith',
      `insert into midst.t select i, repeat(md5(i::text), 30) from generate_series(1, 30000) i`,
    );
    await eventually(() => gate.isShut, { timeoutMs: 60_000 });
    // The signal is there before the answer to the last part is.
    const ended = bridge.stop('SIGTERM');
    gate.openAgain();
    expect(await ended).toBe(0);
    expect(await parts()).toBeGreaterThan(0);
    expect(await pair.on('service', 'select from midst.t')).toEqual([]);
    await bridge.start();
    const sums = await pair.sums('monolith', 'midst', ['t']);
    await eventually(async () => expect(await pair.sums('service', 'midst', ['t'])).toEqual(sums), {
      timeoutMs: 60_000,
    });
  } finally {
    await connection.close();
  }
}, 200_000);
