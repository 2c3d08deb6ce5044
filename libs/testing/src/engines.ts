import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/*
 * NATS and Redis for tests: no npm package ships them. This file imports nothing of ours, so that tools/test.mjs can load
 * it as it is, before anything has been built.
 */

export const engines = ['nats-server', 'redis-server'] as const;
export type Engine = (typeof engines)[number];

/** Called the same in Debian, Homebrew and most other collections. */
const packages: Record<Engine, { apt: string; brew: string; site: string }> = {
  'nats-server': { apt: 'nats-server', brew: 'nats-server', site: 'https://github.com/nats-io/nats-server/releases' },
  'redis-server': { apt: 'redis-server', brew: 'redis', site: 'https://redis.io/downloads' },
};

/** Where packages put servers, whether or not PATH says so: Debian keeps /usr/sbin from ordinary users. */
const usual = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/opt/homebrew/bin'];

/** What the machine is like; specs give another one. */
export interface Machine {
  folders: string[];
  /** May and can it install packages of Debian? */
  apt: boolean;
  /** Resolves with the exit code and what was said. */
  run(command: string, args: string[]): Promise<{ code: number | null; said: string }>;
}

export const thisMachine = (): Machine => ({
  folders: [...(process.env.PATH ?? '').split(delimiter).filter(Boolean), ...usual],
  apt: process.getuid?.() === 0 && existsSync('/etc/debian_version') && existsSync('/usr/bin/apt-get'),
  run,
});

/** Absolute path of an engine's executable. One that is missing is installed where that is possible. */
export async function engine(name: Engine, machine: Machine = thisMachine()): Promise<string> {
  await installEngines([name], machine);
  const path = find(name, machine);
  if (!path) throw new Error(`${name} was installed but is in none of: ${machine.folders.join(', ')}.`);
  return path;
}

/**
 * Makes sure that these engines are there: with apt when root on Debian, else it throws one line that says how to get
 * them. Returns those that had to be installed.
 */
export async function installEngines(names: readonly Engine[] = engines, machine = thisMachine()): Promise<Engine[]> {
  const missing = names.filter((name) => !find(name, machine));
  if (missing.length === 0) return [];
  if (!machine.apt)
    throw new Error(`${missing.join(' and ')} ${missing.length > 1 ? 'are' : 'is'} missing: ${how(missing)}`);
  const wanted = missing.map((name) => packages[name].apt);
  let { code, said } = await aptGet(machine, ['install', ...wanted]);
  if (code !== 0) {
    // A new machine, or an image, has no lists yet, or old ones.
    await aptGet(machine, ['update']);
    ({ code, said } = await aptGet(machine, ['install', ...wanted]));
  }
  if (code !== 0) {
    const reason = said.match(/^E: .*$/m)?.[0] ?? `apt-get ended with ${code}`;
    throw new Error(`${missing.join(' and ')} could not be installed (${reason}): ${how(missing)}`);
  }
  return missing;
}

function find(name: Engine, { folders }: Machine): string | undefined {
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Several test processes may ask at once: the second one waits for the first one's lock, and finds all done. */
const aptGet = (machine: Machine, [verb, ...names]: string[]) =>
  machine.run('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=300', '--yes', '--no-install-recommends', verb!, ...names]);

function how(missing: readonly Engine[]): string {
  const all = (of: 'apt' | 'brew') => missing.map((name) => packages[name][of]).join(' ');
  const sites = missing.map((name) => packages[name].site).join(' and ');
  return `\`sudo apt-get install ${all('apt')}\` on Debian and Ubuntu, \`brew install ${all('brew')}\` on macOS, else ${sites}; tests start their own, on free ports.`;
}

function run(command: string, args: string[]): ReturnType<Machine['run']> {
  return new Promise((done, fail) => {
    // Tests start servers of their own: the packages' system services must stay off (systemctl heeds SYSTEMD_OFFLINE).
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', SYSTEMD_OFFLINE: '1' };
    const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
    child.on('error', fail).on('close', (code) => done({ code, said }));
  });
}
