import { mkdtemp, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { engine } from './engines.js';
import { freePort } from './free-port.js';
import { type ServerProcess, startServer } from './server-process.js';

/**
 * A real Redis server that keeps an append-only file, on a free port and a folder of its own. `config` is added to its
 * configuration (`requirepass`, `user …`, `maxmemory`), in Redis's own language.
 */
export async function startRedis({ config = '' }: { config?: string } = {}): Promise<ServerProcess> {
  const command = await engine('redis-server');
  const folder = await mkdtemp(join(tmpdir(), 'banyan-redis-'));
  const port = await freePort();
  const file = join(folder, 'redis.conf');
  // Made anew by itself after it was removed; the folder around it is not.
  const data = join(folder, 'appendonlydir');
  await writeFile(file, `bind 127.0.0.1\nport ${port}\ndir "${folder}"\nappendonly yes\nsave ""\n${config}\n`);
  return startServer({
    ...{ command, args: [file], url: `redis://127.0.0.1:${port}`, port, folder, data },
    // It reads its file first, and says LOADING meanwhile.
    ready: () => answering(port),
  });
}

/** A server that is there says something to a PING, be it that a password is wanted; one that still loads does not count. */
function answering(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    socket.once('data', (said) => {
      socket.destroy();
      resolve(!said.toString().startsWith('-LOADING'));
    });
    socket.once('error', () => {}).once('close', () => resolve(false));
  });
}
