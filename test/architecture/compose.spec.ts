import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadConfig } from '@banyan/platform/config';
import { serverSettings } from '@banyan/platform/database/server';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { connectionsOf } from '../../apps/cli/src/database-server.js';
import { root } from './source-graph.js';

interface Service {
  image: string;
  command?: string[];
  ports: string[];
  healthcheck?: { test: string[] };
  volumes?: string[];
}
interface Compose {
  services: Record<string, Service>;
  volumes: Record<string, unknown>;
}

const read = (path: string) => readFileSync(join(root, path), 'utf8');
const text = read('deploy/compose.yml');
const { services, volumes } = parse(text) as Compose;

/** What a shell has after `. deploy/.env`. */
const settings = Object.fromEntries(
  execFileSync('/bin/sh', ['-c', 'set -a; . deploy/.env.example; env'], { cwd: root, env: {}, encoding: 'utf8' })
    .split('\n')
    .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
);

describe('deploy/compose.yml', () => {
  it('brings the four engines, each pinned, healthy before it counts, on this machine only', () => {
    expect(Object.keys(services)).toEqual(['postgres', 'nats', 'redis', 'unleash']);
    for (const [name, { image, healthcheck, ports }] of Object.entries(services)) {
      expect(image, name).toMatch(/^[a-z/-]+:\d+\.\d+(\.\d+)?(-alpine)?$/);
      expect(healthcheck?.test[0], name).toMatch(/^CMD/);
      for (const port of ports) expect(port, name).toMatch(/^127\.0\.0\.1:(\d+):\1$/);
    }
  });

  it('has what Banyan needs of them: the log of Postgres, and the Unleash that the tests run against', () => {
    const set = (settings: readonly string[]) =>
      Object.fromEntries(settings.map((each) => each.split('=') as [string, string]));
    const theirs = set(services['postgres']!.command!.filter((word) => word.includes('=')));
    const ours = set(serverSettings);
    for (const name of ['wal_level', 'max_replication_slots', 'max_wal_senders', 'max_active_replication_origins'])
      expect(theirs[name], name).toBe(ours[name]);
    // The fleet that README.md starts on it.
    const up = /banyan up (.+)/.exec(read('README.md').slice(read('README.md').indexOf('docker compose')))![1]!;
    const instances = Object.fromEntries(
      [...up.matchAll(/--([a-z-]+) (\d+)/g)].map(([, what, count]) => [
        `BANYAN_${what!.toUpperCase().replace('-', '_')}`,
        count,
      ]),
    );
    const fleet = loadConfig({ ...settings, ...instances });
    expect(fleet.instances.monoliths).toBe(3);
    const UNLEASH = 20;
    expect(Number(theirs['max_connections'])).toBeGreaterThanOrEqual(connectionsOf(fleet) + UNLEASH);
    const { devDependencies } = JSON.parse(read('package.json')) as { devDependencies: Record<string, string> };
    expect(services['unleash']!.image).toBe(`unleashorg/unleash-server:${devDependencies['unleash-server']}`);
    expect(services['redis']!.command).toEqual(expect.arrayContaining(['--appendonly', 'noeviction']));
  });

  it('keeps its data in volumes that it declares', () => {
    const used = Object.values(services).flatMap(({ volumes }) => (volumes ?? []).map((each) => each.split(':')[0]));
    expect(used).toEqual(Object.keys(volumes));
  });

  it('takes every value from .env, and has no password in it', () => {
    const taken = [...text.matchAll(/\$\{(\w+)/g)].map(([, name]) => name!);
    expect(taken).toContain('POSTGRES_PASSWORD');
    expect(taken.filter((name) => !settings[name])).toEqual([]);
    expect(text).not.toContain('change-me');
  });
});

describe('deploy/.env.example', () => {
  it('lets Banyan find all of them', () => {
    const config = loadConfig(settings);
    expect(config.database.url).toBe('postgres://postgres:change-me-postgres@127.0.0.1:5432/banyan');
    expect(config.transports).toMatchObject({ rpc: 'nats', events: 'jetstream' });
    expect(config.redisUrl).toBe('redis://:change-me-redis@127.0.0.1:6379');
    expect(config.flags).toMatchObject({ url: 'http://127.0.0.1:4242', apiToken: settings['UNLEASH_API_TOKEN'] });
  });
});
