import { type AddressInfo, type Socket, connect, createServer } from 'node:net';

/** Ports of 127.0.0.1 that nobody listens at, nor is ever given by the system. */
export const nobodys = [1, 2] as const;

/** Something at a port that is none of ours. */
export async function listenAt(onSocket: (socket: Socket) => void): Promise<{ port: number; close: () => void }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  return { port: (server.address() as AddressInfo).port, close };
}

export interface Wire {
  port: number;
  /** How many were made so far. */
  connections: number;
  /** How many there are now. */
  open: number;
  /** Bytes that went to the port. */
  sent: number;
  /** Breaks all that there are just now. */
  cut(): void;
  close(): void;
}

/** A wire to a port that counts its connections and can be cut. */
export async function wireTo(target: number): Promise<Wire> {
  const ends: Socket[] = [];
  const { port, close } = await listenAt((near) => {
    wire.connections++;
    wire.open++;
    near.once('close', () => wire.open--).on('data', (some: Buffer) => (wire.sent += some.length));
    const far = connect(target, '127.0.0.1').on('error', () => {});
    ends.push(near, far);
    near.pipe(far).pipe(near);
  });
  const cut = () => ends.forEach((end) => end.resetAndDestroy());
  const wire: Wire = {
    port,
    connections: 0,
    open: 0,
    sent: 0,
    cut,
    close: () => {
      cut();
      close();
    },
  };
  return wire;
}
