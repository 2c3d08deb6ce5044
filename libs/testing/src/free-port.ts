import { createServer } from 'node:net';

/**
 * A port of 127.0.0.1 that nobody listens on now, for whoever has to know it before they listen. Not one of those that
 * systems give to outgoing connections (32768 and above, or 49152), of which any may be taken a moment later.
 */
export async function freePort(): Promise<number> {
  for (let tries = 100; tries > 0; tries--) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if (!given.has(port) && (await isFree(port))) {
      given.add(port);
      return port;
    }
  }
  throw new Error('No free port between 20000 and 32000');
}

const given = new Set<number>();

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer().once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
