import { once } from 'node:events';
import { type Socket, connect } from 'node:net';

/** The same configuration, but the server waits as long as it takes for a client to say who it is. */
export const unhurried = (config: string): string =>
  config.replace(/^(authorization|tls) \{$/gm, (block) => `${block}\n  timeout: 60`);

/** NATS's own protocol, line by line: what a client library would refuse to send is sent, and the server's word counts. */
export class RawClient {
  #said = '';
  #subscriptions = 0;

  #heard = () => {};

  private constructor(private readonly socket: Socket) {
    socket.setEncoding('utf8').on('data', (text: string) => {
      // Who does not answer is taken for dead.
      this.#said = (this.#said + text).replace(/^PING\r\n/gm, () => {
        socket.write('PONG\r\n');
        return '';
      });
      this.#heard();
    });
    // Why it was closed has been said by then.
    socket.on('error', () => {}).on('close', () => this.#heard());
  }

  /** Signed on as `user`; without one as nobody. Rejects with what the server says. */
  static async connect(url: string, user?: string, pass?: string): Promise<RawClient> {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    await once(socket, 'connect');
    const client = new RawClient(socket);
    socket.write(
      `CONNECT ${JSON.stringify({ verbose: false, pedantic: false, protocol: 1, headers: true, user, pass })}\r\n`,
    );
    await client.refusals();
    return client;
  }

  publish(subject: string): void {
    this.socket.write(`PUB ${subject} 0\r\n\r\n`);
  }

  subscribe(subject: string, queue = ''): void {
    this.socket.write(`SUB ${subject} ${queue} ${++this.#subscriptions}\r\n`);
  }

  /**
   * Waits until the server has seen everything so far; what it has refused since it was asked last, in its words:
   * `Publish to "a.b"`, `Subscription to "a.b"`. Rejects when it has closed the connection.
   */
  async refusals(): Promise<string[]> {
    this.socket.write('PING\r\n');
    while (!/^PONG\r$/m.test(this.#said)) {
      if (this.socket.closed) throw new Error(this.#said.match(/-ERR .*/)?.[0] ?? 'closed');
      await new Promise<void>((resolve) => (this.#heard = resolve));
    }
    const said = this.#said;
    this.#said = '';
    return [...said.matchAll(/^-ERR 'Permissions Violation for (.*)'\r$/gm)].map(([, what]) => what!);
  }

  close(): void {
    this.socket.destroy();
  }
}
