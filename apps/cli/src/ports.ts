import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { CommandError } from './exit.js';

const LAST_PORT = 65_535;
const PORTS_TRIED = 1_000;
/**
 * Where any port will do: far below those that systems give to outgoing connections (from 32768 on Linux, 49152 elsewhere),
 * one of which would sooner or later be taken before its process listens.
 */
const ANY = { from: 10_000, to: 19_999 };

/**
 * Who gets which port. Each is tried by listening on it for a moment; a port that was given away counts as taken until
 * it is given back, because its process may not listen on it yet.
 */
export class Ports {
  private readonly given = new Set<number>();
  private last: Promise<unknown> = Promise.resolve();

  /**
   * The port that a setting asks for; 0 becomes a free one.
   * Throws PORT_IN_USE, in one line, with the variable to set.
   */
  claim(variable: string, host: string, port: number): Promise<number> {
    return this.inTurn(async () => {
      if (this.given.has(port)) {
        const detail = `Port ${port} is given to another process of Banyan:`;
        throw new CommandError('PORT_IN_USE', detail, `set ${variable} to a free one.`);
      }
      if (port === 0) return this.any(host);
      try {
        return this.give(await listenOnce(host, port));
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'EADDRINUSE')
          throw new CommandError('PORT_IN_USE', `Port ${port} is in use:`, `set ${variable} to a free one.`);
        if (code === 'EACCES')
          throw new CommandError(
            'PORT_IN_USE',
            `Port ${port} is not allowed here:`,
            `set ${variable} to one above 1023.`,
          );
        throw error;
      }
    });
  }

  /** That port, or any other when it is busy: for one that nobody has to know. 0: any. */
  prefer(host: string, port: number): Promise<number> {
    return this.inTurn(async () => {
      if (port !== 0 && (await this.isFree(host, port))) return this.give(port);
      return this.any(host);
    });
  }

  /** The first `count` free ones from `from` upward, on 127.0.0.1; with 0 any. */
  firstFrom(from: number, count: number): Promise<number[]> {
    return this.inTurn(async () => {
      const found: number[] = [];
      if (from === 0) while (found.length < count) found.push(await this.any('127.0.0.1'));
      const last = Math.min(from + PORTS_TRIED, LAST_PORT);
      for (let port = from; found.length < count && port <= last; port++)
        if (await this.isFree('127.0.0.1', port)) found.push(port);
      if (found.length === count) return found.map((port) => this.give(port));
      throw new Error(`No ${count} ports are free from ${from} to ${last}: set SERVICE_PORTS_FROM to another start`);
    });
  }

  /** Would their owner, who does not run now, get all of these again? */
  async stillFree(host: string, ports: readonly number[]): Promise<boolean> {
    for (const port of ports) if (!(await canListen(host, port))) return false;
    return true;
  }

  giveBack(ports: readonly number[]): void {
    for (const port of ports) this.given.delete(port);
  }

  private async any(host: string): Promise<number> {
    for (let tried = 0; tried < PORTS_TRIED; tried++) {
      const port = randomInt(ANY.from, ANY.to + 1);
      if (await this.isFree(host, port)) return this.give(port);
    }
    return this.give(await listenOnce(host, 0));
  }

  private give(port: number): number {
    this.given.add(port);
    return port;
  }

  private async isFree(host: string, port: number): Promise<boolean> {
    return !this.given.has(port) && (await canListen(host, port));
  }

  /** One at a time: two that ask at once must not be given the same one. */
  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.last.then(work);
    this.last = result.catch(() => {});
    return result;
  }
}

const canListen = (host: string, port: number): Promise<boolean> =>
  listenOnce(host, port).then(
    () => true,
    () => false,
  );

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
