import { createServer } from 'node:net';
import { CommandError } from './exit.js';

/** A port of 127.0.0.1 that nobody listens on now. */
export async function freePort(): Promise<number> {
  return listenOnce('127.0.0.1', 0);
}

/**
 * The port that a setting asks for, tried by listening on it; 0 becomes a free one.
 * Throws PORT_IN_USE, in one line, with the variable to set.
 */
export async function claimPort(variable: string, host: string, port: number): Promise<number> {
  try {
    return await listenOnce(host, port);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE')
      throw new CommandError('PORT_IN_USE', `Port ${port} is in use:`, `set ${variable} to a free one.`);
    if (code === 'EACCES')
      throw new CommandError('PORT_IN_USE', `Port ${port} is not allowed here:`, `set ${variable} to one above 1023.`);
    throw error;
  }
}

function listenOnce(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : port));
    });
  });
}
