import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Machine, engine, installEngines } from './engines.js';

/* apt-get is a stand-in here: what it would really do takes a machine of its own. */
let folder: string;
let asked: string[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan-engines-'));
  asked = [];
});
afterEach(() => rm(folder, { recursive: true }));

const put = async (name: string, mode = 0o755) => {
  await writeFile(join(folder, name), '#!/bin/sh\n');
  await chmod(join(folder, name), mode);
};

/** `lists`: does apt know any packages? A new image does not. */
function machine({ apt = true, lists = true, mirror = true } = {}): Machine {
  return {
    folders: ['/nowhere', folder],
    apt,
    async run(command, args) {
      asked.push([command, ...args.filter((arg) => !arg.startsWith('-') && !arg.includes('::'))].join(' '));
      if (args.includes('update')) lists ||= mirror;
      else if (!lists) return { code: 100, said: 'Reading…\nE: Unable to locate package nats-server\n' };
      else for (const name of args.filter((arg) => arg.endsWith('-server'))) await put(name);
      return { code: 0, said: '' };
    },
  };
}

describe('An engine', () => {
  it('that is there is taken, and nothing is installed', async () => {
    await put('nats-server');
    expect(await engine('nats-server', machine())).toBe(join(folder, 'nats-server'));
    expect(asked).toEqual([]);
  });

  it('is no file that cannot be run', async () => {
    await put('nats-server', 0o644);
    await expect(engine('nats-server', machine({ apt: false }))).rejects.toThrow('nats-server is missing');
  });

  it('that is missing is installed, and only that', async () => {
    await put('redis-server');
    expect(await installEngines(undefined, machine())).toEqual(['nats-server']);
    expect(asked).toEqual(['apt-get install nats-server']);
  });

  it('is found on a new machine, where apt has to read its lists first', async () => {
    expect(await engine('redis-server', machine({ lists: false }))).toBe(join(folder, 'redis-server'));
    expect(asked).toEqual(['apt-get install redis-server', 'apt-get update', 'apt-get install redis-server']);
  });

  it('that cannot be installed is one line: how to get it', async () => {
    const line = await installEngines(undefined, machine({ apt: false })).catch((error: Error) => error.message);
    expect(line).toMatch(
      /^nats-server and redis-server are missing: `sudo apt-get install nats-server redis-server` on/,
    );
    expect(line).not.toContain('\n');
    const refused = await installEngines(undefined, machine({ lists: false, mirror: false })).catch(
      (error: Error) => error.message,
    );
    expect(refused).toMatch(/could not be installed \(E: Unable to locate package nats-server\): `sudo apt-get/);
    expect(refused).not.toContain('\n');
  });
});
