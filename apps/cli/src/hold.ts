import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { type Server, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** Held until it is let go, or until this process is gone. */
export interface Hold {
  letGo(): void;
}

/**
 * Takes a name that one process per state folder may have, or says who has it. The name is a listening socket and
 * not a file with a process id: the system takes it back when the process ends in whatever way, and a number that was
 * given to another process meanwhile misleads nobody.
 */
export async function hold(stateDir: string, name: string): Promise<Hold | { heldBy: number }> {
  const address = addressOf(stateDir, name);
  for (;;) {
    const server = await listen(address);
    if (server) return { letGo: () => void server.close() };
    const heldBy = await ask(address);
    if (heldBy !== undefined) return { heldBy };
    // A socket file that a killed process left behind; Linux and Windows have none.
    if (process.platform !== 'linux' && process.platform !== 'win32') await rm(address, { force: true });
  }
}

/** Resolves when nobody holds the name (any more). */
export async function released(stateDir: string, name: string): Promise<void> {
  await new Promise<void>((done) => {
    const socket = connect(addressOf(stateDir, name));
    socket.resume();
    socket.on('error', () => done());
    socket.on('close', () => done());
  });
}

function addressOf(stateDir: string, name: string): string {
  const id = `banyan-${name}-${createHash('sha256').update(resolve(stateDir)).digest('hex').slice(0, 24)}`;
  if (process.platform === 'linux') return `\0${id}`;
  return process.platform === 'win32' ? `\\\\.\\pipe\\${id}` : join(tmpdir(), `${id}.sock`);
}

function listen(address: string): Promise<Server | undefined> {
  return new Promise((done, fail) => {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.write(`${process.pid}\n`);
    });
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? done(undefined) : fail(error),
    );
    server.listen(address, () => done(server.unref()));
  });
}

/** The process that listens; undefined when none does. */
function ask(address: string): Promise<number | undefined> {
  return new Promise((done) => {
    const socket = connect(address);
    socket.on('error', () => done(undefined));
    socket.on('data', (data) => {
      done(Number.parseInt(data.toString(), 10));
      socket.destroy();
    });
    socket.on('close', () => done(undefined));
  });
}
