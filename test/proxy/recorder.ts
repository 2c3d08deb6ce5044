import { once } from 'node:events';
import { type AddressInfo, type Server, type Socket, connect, createServer } from 'node:net';
import { onTestFinished } from 'vitest';

/** One request as it came over the wire: nothing parsed away. */
export interface Recorded {
  /** Everything up to the empty line, as latin1. */
  head: string;
  line: string;
  /** Lower-case names, in order, with every value. */
  headers: [string, string][];
  body: string;
}

export const values = (request: Recorded, name: string): string[] =>
  request.headers.flatMap(([each, value]) => (each === name ? [value] : []));

const OK = 'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok';

/** An upstream that is nothing but a socket, and remembers every byte that it is sent. */
export class Recorder {
  readonly requests: Recorded[] = [];
  readonly sockets = new Set<Socket>();
  connections = 0;
  /** What is answered; `undefined` keeps silent. May write by itself. */
  answer: (request: Recorded, socket: Socket) => string | undefined = () => OK;
  #raw = '';

  private constructor(private readonly server: Server) {}

  static async start(answer?: Recorder['answer'], port = 0): Promise<Recorder> {
    const server = createServer({ noDelay: true });
    const recorder = new Recorder(server);
    if (answer) recorder.answer = answer;
    server.on('connection', (socket) => recorder.#read(socket));
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => recorder.stop());
    return recorder;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Every byte of every connection. */
  get raw(): string {
    return this.#raw;
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    if (this.server.listening) await new Promise((done) => this.server.close(done));
  }

  #read(socket: Socket): void {
    this.connections += 1;
    this.sockets.add(socket);
    socket.on('error', () => {}).once('close', () => this.sockets.delete(socket));
    let rest = '';
    socket.on('data', (chunk) => {
      this.#raw += chunk.toString('latin1');
      rest += chunk.toString('latin1');
      for (let request; (request = take(rest));) {
        rest = request.rest;
        this.requests.push(request.recorded);
        const answer = this.answer(request.recorded, socket);
        if (answer !== undefined) socket.write(answer, 'latin1');
      }
    });
  }
}

/** A simple reader: it needs to understand what a correct proxy sends, and nothing else. */
function take(text: string): { recorded: Recorded; rest: string } | undefined {
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const head = text.slice(0, end);
  const [line = '', ...lines] = head.split('\r\n');
  const headers = lines.map((each): [string, string] => {
    const at = each.indexOf(':');
    return [each.slice(0, at).toLowerCase(), each.slice(at + 1).trim()];
  });
  const recorded: Recorded = { head, line, headers, body: '' };
  const after = text.slice(end + 4);
  if (values(recorded, 'transfer-encoding').length > 0) {
    const last = after.indexOf('0\r\n\r\n');
    if (last < 0) return undefined;
    recorded.body = chunks(after.slice(0, last));
    return { recorded, rest: after.slice(last + 5) };
  }
  const length = Number(values(recorded, 'content-length')[0] ?? 0);
  if (after.length < length) return undefined;
  recorded.body = after.slice(0, length);
  return { recorded, rest: after.slice(length) };
}

function chunks(text: string): string {
  let [body, rest] = ['', text];
  while (rest) {
    const end = rest.indexOf('\r\n');
    const size = Number.parseInt(rest.slice(0, end), 16);
    body += rest.slice(end + 2, end + 2 + size);
    rest = rest.slice(end + 4 + size);
  }
  return body;
}

/** Silence is counted in ticks: a process that was held up could hear nothing meanwhile, and that is one of them. */
const TICKS = 10;

/** Sends bytes as they are, and answers all that came back until the other side closed, or fell silent for `quietMs`. */
export async function raw(port: number, bytes: string, { end = false, quietMs = 250 } = {}): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  let said = '';
  let left = 4 * TICKS;
  let timer: NodeJS.Timeout | undefined;
  await new Promise<void>((done) => {
    timer = setInterval(() => --left === 0 && done(), quietMs / TICKS);
    socket.on('data', (chunk) => {
      said += chunk.toString('latin1');
      left = TICKS;
    });
    socket.on('error', () => {}).once('close', done);
    socket.once('connect', () => (end ? socket.end(bytes, 'latin1') : socket.write(bytes, 'latin1')));
  });
  clearInterval(timer);
  socket.destroy();
  return said;
}

export const statusesOf = (answer: string): number[] =>
  [...answer.matchAll(/HTTP\/1\.[01] (\d{3})/g)].map(([, status]) => Number(status));
