import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { natsPassword } from '@banyan/messaging/nats-config';
import { loadConfig } from '@banyan/platform/config';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { enginesOf } from './engines.js';
import { natsSettings } from './nats-users.js';

const NATS_URL = 'nats://127.0.0.1:4222';
const NATS_SECRET = 'a secret that is long enough to be one';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'banyan-nats-config-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const configOf = (settings: Record<string, string>) => loadConfig({ BANYAN_STATE_DIR: folder, ...settings });

/** The real command, as it is typed. */
function run(args: string[], settings: Record<string, string> = {}) {
  const bin = join(import.meta.dirname, '../bin/banyan.mjs');
  const env = { PATH: '', BANYAN_STATE_DIR: folder, ...settings };
  return new Promise<{ code: unknown; stdout: string; stderr: string }>((done) =>
    execFile(process.execPath, [bin, 'nats-config', ...args], { env }, (error, stdout, stderr) =>
      done({ code: error ? error.code : 0, stdout, stderr }),
    ),
  );
}

describe('banyan nats-config', () => {
  it('writes a file for nobody else to read, with the same passwords every time', async () => {
    const out = join(folder, 'nats.conf');
    writeFileSync(out, 'what was there before');
    const { code, stdout } = await run(['--out', out, '--listen', '0.0.0.0:14222', '--store', '/data']);
    expect([code, stdout]).toEqual([0, expect.stringContaining(`nats-server -c ${out}`)]);
    expect(stdout).toContain('NATS_URL=nats://127.0.0.1:14222 npm start');
    expect(statSync(out).mode & 0o777).toBe(0o600);
    const text = readFileSync(out, 'utf8');
    expect(text).toContain('listen: "0.0.0.0:14222"\njetstream { store_dir: "/data" }');
    const secret = readFileSync(join(folder, 'nats-secret'), 'utf8').trim();
    expect(text).toContain(`password: "${natsPassword(secret, 'orders-service')}"`);

    const again = await run(['--listen', '0.0.0.0:14222', '--store', '/data']);
    expect(again.stdout).toBe(text);
  });

  it('takes a secret that is set, tells programs each user, and takes TLS as files', async () => {
    const { stdout } = await run(['--json', '--tls-cert', '/c.pem', '--tls-key', '/k.pem'], { NATS_SECRET });
    const { users, config } = JSON.parse(stdout) as { users: { user: string; password: string }[]; config: string };
    expect(users).toHaveLength(16);
    expect(users).toContainEqual(
      expect.objectContaining({ user: 'monolith', password: natsPassword(NATS_SECRET, 'monolith'), answers: true }),
    );
    expect(config).toContain('tls {\n  cert_file: "/c.pem"\n  key_file: "/k.pem"\n}');
  });

  it('refuses half of a TLS setting', async () => {
    expect(await run(['--tls-cert', '/c.pem'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--tls-key'),
    });
    expect(await run(['--tls-ca', '/ca.pem'])).toMatchObject({ code: 2 });
  });
});

describe('A process that banyan up starts', () => {
  const ordersService = { NATS_SECRET: '', NATS_USER: 'orders-service' };

  it('signs on as what it is, and does not learn the secret', () => {
    const config = configOf({ NATS_URL, NATS_SECRET });
    const password = { NATS_PASSWORD: natsPassword(NATS_SECRET, 'orders-service') };
    expect(natsSettings(config, 'service', 'orders')).toEqual({ ...ordersService, ...password });
    expect(natsSettings(config, 'bridge', 'orders')).toMatchObject({ NATS_USER: 'orders-bridge' });
    expect(natsSettings(config, 'monolith')).toMatchObject({ NATS_USER: 'monolith' });
    expect(natsSettings(config, 'control-plane')).toMatchObject({ NATS_USER: 'control-plane' });
    expect(natsSettings(config, 'proxy')).toEqual({ NATS_SECRET: '' });
  });

  it('does so with the secret that nats-config has kept', () => {
    expect(natsSettings(configOf({ NATS_URL }), 'service', 'orders')).toEqual({ NATS_SECRET: '' });
    writeFileSync(join(folder, 'nats-secret'), `${NATS_SECRET}\n`);
    expect(natsSettings(configOf({ NATS_URL }), 'service', 'orders')).toMatchObject(ordersService);
  });

  it('signs on as whoever is named, if somebody is', () => {
    const named = configOf({ NATS_URL, NATS_SECRET, NATS_USER: 'me', NATS_PASSWORD: 'mine' });
    expect(natsSettings(named, 'monolith')).toEqual({ NATS_SECRET: '' });
    expect(natsSettings(configOf({ NATS_URL: 'nats://me:mine@host', NATS_SECRET }), 'monolith')).toEqual({
      NATS_SECRET: '',
    });
  });
});

describe('The banner', () => {
  it('says which engines it runs on, without their passwords', () => {
    expect(enginesOf(configOf({}))).toEqual({
      database: 'Postgres, built in',
      calls: 'TCP',
      events: 'direct, from outbox to inbox',
      shared: 'Postgres for jobs, else each process its own',
      flags: 'own',
    });
    const all = enginesOf(
      configOf({
        DATABASE_URL: 'postgres://postgres:hidden@db:5432/banyan',
        NATS_URL: 'nats://me:hidden@one:4222,nats://me:hidden@two:4222',
        BANYAN_RPC: 'tcp',
        REDIS_URL: 'redis://:hidden@cache:6379',
        UNLEASH_URL: 'http://flags:4242',
      }),
    );
    expect(all).toEqual({
      database: 'Postgres at db:5432',
      calls: 'TCP',
      events: 'JetStream on NATS at one:4222, two:4222',
      shared: 'Redis at cache:6379',
      flags: 'Unleash at flags:4242',
    });
    expect(enginesOf(configOf({ DATABASE_URL: 'postgres:///banyan?host=/run/postgres' })).database).toBe(
      'Postgres at /run/postgres',
    );
  });
});
