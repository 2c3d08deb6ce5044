import { type Server, type Socket, connect, createServer } from 'node:net';
import { freePort } from '@banyan/testing';

/** The only way from the app to its Postgres, so that a spec can cut it: Postgres itself serves other specs as well. */
export class Wire {
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  private constructor(
    private readonly target: { host: string; port: number },
    /** It is listened on again whenever the wire is mended. */
    private readonly port: number,
  ) {}

  /** A wire to the server of a database URL. */
  static async to(url: string): Promise<Wire> {
    const { hostname, port } = new URL(url);
    const wire = new Wire({ host: hostname, port: Number(port) }, await freePort());
    await wire.mend();
    return wire;
  }

  /** The same database, seen through this wire. */
  through(url: string): string {
    const seen = new URL(url);
    seen.hostname = '127.0.0.1';
    seen.port = String(this.port);
    return seen.href;
  }

  /** Every connection breaks, and new ones are refused. */
  async cut(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const closed = new Promise((resolve) => server?.close(resolve) ?? resolve(undefined));
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await closed;
  }

  async mend(): Promise<void> {
    const server = createServer((near) => {
      const far = connect(this.target);
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(one);
        one.setNoDelay();
        one
          .on('error', () => {})
          .on('close', () => {
            this.#sockets.delete(one);
            other.destroy();
          });
        one.pipe(other);
      }
    });
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(this.port, '127.0.0.1', resolve));
    this.#server = server;
  }
}
