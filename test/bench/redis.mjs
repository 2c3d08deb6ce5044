import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePort } from '@banyan/testing/servers';

const run = promisify(execFile);
const HOW_TO =
  'No redis-server here: install one (Debian: apt-get install redis-server) to compare with BullMQ on Redis.';

/** Is there a redis-server? Root on Debian gets one installed; else undefined, after one line that says how to. */
export async function findRedis() {
  const found = () =>
    run('redis-server', ['--version']).then(
      () => true,
      () => false,
    );
  if (await found()) return true;
  if (process.getuid?.() === 0 && existsSync('/etc/debian_version')) {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const install = ['install', '-y', '-qq', '--no-install-recommends', 'redis-server'];
    await run('apt-get', install, { env })
      .catch(() => run('apt-get', ['update', '-qq'], { env }).then(() => run('apt-get', install, { env })))
      .catch(() => {});
    if (await found()) return true;
  }
  console.error(HOW_TO);
  return false;
}

/** A Redis of our own on 127.0.0.1, with nothing in it. */
export async function startRedis(settings) {
  const [port, folder] = [await freePort(), mkdtempSync(join(tmpdir(), 'banyan-redis-'))];
  const child = spawn(
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', folder, ...settings],
    { stdio: 'ignore' },
  );
  for (let tries = 0; !(await answers(port)); tries++) {
    if (tries === 200) throw new Error('redis-server does not answer');
    await sleep(25);
  }
  return {
    port,
    pid: child.pid,
    async stop() {
      const gone = new Promise((done) => child.once('exit', done));
      child.kill('SIGKILL');
      await gone;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const answers = (port) =>
  new Promise((done) => {
    const socket = connect(port, '127.0.0.1', () => done(true));
    socket.on('error', () => done(false)).on('connect', () => socket.destroy());
  });
