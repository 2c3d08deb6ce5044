import { writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { calledByAll, contracts } from '@banyan/contracts';
import { streamName } from '@banyan/extraction/protocol';
import { natsConfig, natsPassword, natsUser, natsUsers } from '@banyan/messaging/nats-config';
import { type Stream, prepareStream, streamState } from '@banyan/replication';
import { ensureContextDatabases } from '@banyan/platform/database';
import { type ServerProcess, eventually, migrationsDir, startNats } from '@banyan/testing';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { BridgeProcess, throughNats } from './bridge-process.js';
import { Pair } from './pair.js';

const secret = 'the secret that all passwords of this test derive from';
/** The server lets this bridge do its work and nothing else. Messages are so short that a larger transaction goes in parts. */
const config = `${natsConfig({ users: natsUsers(contracts, calledByAll), secret })}\nmax_payload: 65536`;
const user = natsUser.bridge('notifications');
const signOn = { NATS_USER: user, NATS_PASSWORD: natsPassword(secret, user) };

const patient = { timeoutMs: 60_000 };

type Side = 'monolith' | 'service';
const other = (side: Side): Side => (side === 'monolith' ? 'service' : 'monolith');

/* The bridge of a context as a real process, through hand-overs there and back, killed at each of its own steps. */
describe.each(['slot', 'JetStream'])('A bridge whose log goes through %s', (log) => {
  let pair: Pair;
  let bridge: BridgeProcess;
  let nats: ServerProcess | undefined;
  let failPoints: string;

  beforeAll(async () => {
    failPoints = await mkdtemp(join(tmpdir(), 'banyan-bridge-'));
    pair = await Pair.on(inject('adminUrl'));
    for (const side of ['monolith', 'service'] as const)
      await ensureContextDatabases({ adminUrl: pair.urls[side], contexts: ['notifications'], side, migrationsDir });
    // A table of our own: what the context has in its tables is no matter here.
    await pair.onBoth('create table notifications.note (sku text primary key)');
    nats = log === 'slot' ? undefined : await startNats({ config });
    bridge = new BridgeProcess(pair, 'notifications', {
      BANYAN_FAIL_POINTS: failPoints,
      ...(nats && { ...throughNats(nats), ...signOn }),
    });
  });
  afterEach(() => bridge?.stop());
  afterAll(async () => {
    try {
      await pair?.drop();
    } finally {
      await nats?.stop();
      await rm(failPoints, { recursive: true });
    }
  });

  const streamFrom = (from: Side): Stream => ({
    name: streamName('notifications', from, pair.urls[from]),
    source: pair.urls[from],
    target: pair.urls[other(from)],
    schema: 'notifications',
  });

  it('opens the other side with all of the writes, turns round, and survives a kill at every step', async () => {
    await prepareStream(streamFrom('monolith'), { backfill: true });
    await bridge.start();
    await eventually(async () => (await streamState(streamFrom('monolith'))).backfill?.done, patient);
    expect(await owners()).toEqual({ monolith: 'open 1', service: 'closed 0' });

    let from: Side = 'monolith';
    let epoch = 1;
    const points = ['bridge-before-open', 'bridge-after-open', 'bridge-before-mark', 'bridge-before-turn', undefined];
    if (nats) points.unshift('bridge-between-parts', 'bridge-after-publish');
    for (const point of points) {
      const to = other(from);
      // Who carried it before lets go of its slot a moment after the turn.
      await eventually(async () => !(await streamState(streamFrom(to))).active, patient);
      await prepareStream(streamFrom(to), { backfill: false });
      for (let i = 0; i < 20; i++) await write(from, `${epoch}-${i}`);
      if (point) writeFileSync(join(failPoints, point), '');
      if (point === 'bridge-between-parts')
        await pair.on(from, `insert into notifications.note select 'many-' || i from generate_series(1, 5000) i`);
      await pair.on(from, 'select notifications.banyan_close($1, $2)', [epoch, to]);
      epoch += 1;
      await eventually(async () => (await owners())[to] === `open ${epoch}`, patient);
      expect((await owners())[from]).toBe(`closed ${epoch}`);
      // Open means: everything is there already.
      expect(await stock(to)).toEqual(await stock(from));
      await write(to, `${epoch}-first`);
      await eventually(async () => expect(await stock(from)).toEqual(await stock(to)), patient);
      from = to;
    }
    expect(bridge.crashes).toBe(points.length - 1);
  }, 300_000);

  it('ignores a message that nobody closed a side for, and a hand-over that was called off', async () => {
    const [owner] = await pair.on<{ side: Side; epoch: number }>(
      'monolith',
      'select side, epoch::int from notifications.banyan_owner where open',
    );
    const from: Side = owner ? 'monolith' : 'service';
    const [{ epoch }] = (await pair.on<{ epoch: number }>(
      from,
      'select epoch::int from notifications.banyan_owner',
    )) as [{ epoch: number }];
    const to = other(from);
    await pair.on(from, `select pg_logical_emit_message(true, 'banyan.handover', $1)`, [
      JSON.stringify({ context: 'notifications', epoch: epoch + 1, to }),
    ]);
    await pair.on(from, `select pg_logical_emit_message(true, 'banyan.handover', 'nonsense')`);
    // Closed and called off before any bridge ran.
    await pair.on(from, 'select notifications.banyan_close($1, $2)', [epoch, to]);
    expect(await pair.on(to, 'select notifications.banyan_bar($1) as barred', [epoch + 2])).toEqual([{ barred: true }]);
    await pair.on(from, 'select notifications.banyan_reopen($1)', [epoch + 1]);
    await bridge.start();
    await write(from, 'after');
    await eventually(async () => expect(await stock(to)).toEqual(await stock(from)), patient);
    expect((await owners())[to]).toMatch(/^closed/);
  }, 120_000);

  it.runIf(log !== 'slot')(
    'lets the owner forget its log while the other side is away',
    async () => {
      const [owner] = await pair.on('monolith', 'select from notifications.banyan_owner where open');
      const from: Side = owner ? 'monolith' : 'service';
      const away = new URL(pair.urls[other(from)]).pathname.slice(1);
      await pair.on(from, `alter database ${away} allow_connections false`);
      await pair.on(from, 'select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [away]);
      try {
        void bridge.start(); // ready only when both answer
        await write(from, 'meanwhile');
        const [{ lsn }] = (await pair.on<{ lsn: string }>(from, 'select pg_current_wal_insert_lsn()::text as lsn')) as [
          { lsn: string },
        ];
        await pair.on(from, `select pg_logical_emit_message(true, 'spec', '', true)`); // flushes the log
        await eventually(
          async () =>
            (
              await pair.on(
                from,
                'select from pg_replication_slots where slot_name = $1 and confirmed_flush_lsn >= $2::pg_lsn',
                [streamFrom(from).name, lsn],
              )
            ).length === 1,
          patient,
        );
      } finally {
        await pair.on(from, `alter database ${away} allow_connections true`);
      }
      await eventually(async () => expect(await stock(other(from))).toEqual(await stock(from)), patient);
    },
    150_000,
  );

  it('says what it waits for while its stream is not prepared', async () => {
    await pair.on('monolith', `delete from banyan_replication.mark`);
    await pair.on('service', `delete from banyan_replication.mark`);
    await bridge.start();
    const ready = async () => (await fetch(`${bridge.url}/readyz`)).text();
    await eventually(async () => (await ready()).includes('not prepared'), patient);
    const metrics = await (await fetch(`${bridge.url}/metrics`)).text();
    expect(metrics).toContain('banyan_bridge_lag_bytes{context="notifications"');
    expect(await bridge.stop('SIGTERM')).toBe(0);
  }, 120_000);

  async function write(side: Side, sku: string): Promise<void> {
    await pair.on(side, `insert into notifications.note values ($1)`, [sku]);
  }

  const stock = (side: Side) => pair.sums(side, 'notifications', ['note']);

  async function owners(): Promise<Record<Side, string>> {
    const of = async (side: Side) => {
      const rows = await pair.on<{ open: boolean; epoch: string }>(
        side,
        'select open, epoch::text from notifications.banyan_owner',
      );
      return `${rows[0]?.open ? 'open' : 'closed'} ${rows[0]?.epoch}`;
    };
    return { monolith: await of('monolith'), service: await of('service') };
  }
});
