import { mkdtemp, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { engine } from './engines.js';
import { freePort } from './free-port.js';
import { type ServerProcess, startServer } from './server-process.js';

export interface NatsServer extends ServerProcess {
  /** Another `config` from now on: users and rights at once, other settings after a restart. */
  reload(config: string): Promise<void>;
}

/**
 * A real NATS server with JetStream, on a free port and a folder of its own. `config` is added to its configuration
 * (users, TLS, limits), in nats-server's own language.
 */
export async function startNats({ config = '' }: { config?: string } = {}): Promise<NatsServer> {
  const command = await engine('nats-server');
  const folder = await mkdtemp(join(tmpdir(), 'banyan-nats-'));
  const port = await freePort();
  const file = join(folder, 'nats.conf');
  const data = join(folder, 'store');
  const configure = (config: string) =>
    writeFile(file, `listen: "127.0.0.1:${port}"\njetstream { store_dir: "${data}" }\n${config}\n`);
  await configure(config);
  const server = await startServer({
    ...{ command, args: ['-c', file], url: `nats://127.0.0.1:${port}`, port, folder, data },
    // It reads its streams first.
    ready: () => greeted(port),
  });
  return Object.assign(server, {
    async reload(config: string) {
      await configure(config);
      process.kill(server.pid, 'SIGHUP');
    },
  });
}

/** A server that takes clients says so first: `INFO {…}`. */
function greeted(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('data', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {}).once('close', () => resolve(false));
  });
}
