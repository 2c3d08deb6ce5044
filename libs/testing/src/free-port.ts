import { mkdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';

/** Where processes that run beside each other note the ports they were given: a file each. */
const givenPorts = join(tmpdir(), `banyan-test-ports-${userInfo().uid}`);
/** Whoever was given a port listens on it by then, or never will, ms. */
const KEPT = 600_000;

/**
 * A port of 127.0.0.1 that nobody listens on now, for whoever has to know it before they listen. Not one of those that
 * systems give to outgoing connections (32768 and above, or 49152), of which any may be taken a moment later; nor one that
 * was given to another process of this machine a short time ago.
 */
export async function freePort(): Promise<number> {
  mkdirSync(givenPorts, { recursive: true });
  for (let tries = 200; tries > 0; tries--) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if ((await isFree(port)) && take(port)) return port;
  }
  throw new Error('No free port between 20000 and 32000');
}

function take(port: number): boolean {
  const file = join(givenPorts, String(port));
  try {
    writeFileSync(file, '', { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  if (Date.now() - (statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0) < KEPT) return false;
  utimesSync(file, new Date(), new Date());
  return true;
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer().once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
