import type { AddressInfo, Server, Socket } from 'node:net';
import { type INestApplication, Logger } from '@nestjs/common';
import { ClientTCP, JsonSocket, type MessageHandler, ServerTCP } from '@nestjs/microservices';
import { DomainError, reasonOf } from '@banyan/kernel';
import { currentTraceparent } from '@banyan/platform/telemetry';
import type { Envelope, EventEnvelope, GivenBack, Receipt, Reply } from './envelope.js';
import { CONTEXT_UNREACHABLE, refusal, unreachable, within } from './failures.js';
import type { Address, Peers, RemoteTransport, Whereabouts } from './placement.js';
import {
  CALL,
  type Call,
  DELIVER,
  DELIVERY,
  type Delivery,
  GIVING_BACK,
  type Return,
  broken,
  inputTooLong,
  outputOf,
  tooLong,
} from './rpc.js';

export { RpcController } from './rpc.js';

/** The longest message either way, in characters: a batch of 500 events has 0.3 million. */
const LONGEST = 16 * 1024 * 1024;
/** How long a connection may take to come about, ms. */
const CONNECT = 2_000;
/** How often a process that was away is looked for, ms: in the background, so that no call waits for it. */
const LOOK_AGAIN = 500;

/**
 * Nest's JSON over TCP, bounded. What a turn of the event loop brings about leaves in one packet, and at once: Nagle would
 * hold it back for 40 ms, and a system call for each message was most of what a call costs.
 */
class RpcSocket extends JsonSocket {
  #corked = false;

  constructor(socket: Socket) {
    super(socket, {
      // Some of the next message may be in the buffer as well.
      maxBufferSize: LONGEST + 1024 * 1024,
      maxSendBufferSize: 8 * LONGEST,
      incompleteMessageTimeout: 10_000,
    });
    socket.setNoDelay(true).setKeepAlive(true, 10_000);
  }

  protected override handleSend(message: unknown, callback?: (error?: unknown) => void): void {
    if (!this.#corked) {
      this.#corked = true;
      this.netSocket.cork();
      setImmediate(() => {
        this.#corked = false;
        this.netSocket.uncork();
      });
    }
    super.handleSend(message, callback);
  }
}

/** An answer on its way, as Nest packs it. */
interface Packet {
  response?: Reply;
}

class RpcServer extends ServerTCP {
  readonly #log = new Logger('rpc');

  constructor({ host, port }: Address) {
    const fitting = (packet: Packet) =>
      JSON.stringify(packet).length <= LONGEST ? packet : { ...packet, response: tooLong() };
    super({ host, port, socketClass: RpcSocket, serializer: { serialize: fitting } });
  }

  /* Nest looks for JSON in the pattern first, and the exception costs 11 us. */
  override getHandlerByPattern(pattern: string): MessageHandler | null {
    return this.messageHandlers.get(pattern) ?? null;
  }

  override handleError(error: unknown): void {
    this.#log.warn({ msg: 'a connection broke', reason: reasonOf(error) });
  }

  get boundPort(): number {
    return (this.unwrap<Server>().address() as AddressInfo).port;
  }
}

/**
 * Lets other processes in: to be called on an initialised app that has the `RpcController`. The app's guards cover the
 * handlers. Answers the port, which the system chooses for 0. Rejects when it is taken.
 */
export async function listenRpc(app: INestApplication, address: Address): Promise<number> {
  const strategy = new RpcServer(address);
  const server = app.connectMicroservice({ strategy }, { inheritAppConfig: true });
  await server.listen();
  return strategy.boundPort;
}

class PeerClient extends ClientTCP {
  constructor({ host, port }: Address) {
    super({ host, port, socketClass: RpcSocket });
  }

  /* Whoever waits for an answer is told. */
  override handleError(): void {}
}

/** One process as others reach it: one connection, made again by itself whenever there is something to send. */
class TcpTransport implements RemoteTransport {
  readonly name = 'tcp';
  readonly #client: PeerClient;
  #running = 0;
  #retired = false;
  #looking: NodeJS.Timeout | undefined;

  constructor(
    readonly address: Address,
    private readonly token: string,
  ) {
    this.#client = new PeerClient(address);
  }

  /** It could not be reached a moment ago. */
  get away(): boolean {
    return this.#looking !== undefined;
  }

  async call(envelope: Envelope, until = envelope.deadline): Promise<Reply> {
    const text = JSON.stringify(envelope);
    if (text.length > LONGEST) return inputTooLong(envelope.operation);
    return this.#ask(CALL, { token: this.token, envelope } satisfies Call, envelope.context, until);
  }

  async deliver(context: string, events: EventEnvelope[]): Promise<Receipt[]> {
    const message: Delivery = { token: this.token, context, events, traceparent: currentTraceparent() };
    return outputOf(await this.#ask(DELIVERY, message, context, Date.now() + DELIVER));
  }

  async giveBack(context: string, back: GivenBack[]): Promise<void> {
    const message: Return = { token: this.token, context, back };
    outputOf(await this.#ask(GIVING_BACK, message, context, Date.now() + DELIVER));
  }

  /** For good. Whoever is on the way to a connection is told that there is none. */
  close(): void {
    this.#retired = true;
    this.#found();
    this.#client.close();
  }

  /** Closes when what is running has been answered. */
  retire(): void {
    this.#retired = true;
    if (this.#running === 0) this.close();
  }

  async #ask(pattern: string, message: object, context: string, until: number): Promise<Reply> {
    this.#running += 1;
    try {
      const reply = (await this.#connected(context, until)) ?? (await this.#answer(pattern, message, context, until));
      if (isUnreachable(reply)) this.#lookAgain();
      else this.#found();
      return reply;
    } finally {
      this.#running -= 1;
      if (this.#retired && this.#running === 0) this.close();
    }
  }

  #lookAgain(): void {
    if (this.#retired || this.#looking) return;
    const look = () =>
      void this.#client.connect().then(
        () => this.#found(),
        () => {},
      );
    this.#looking = setInterval(look, LOOK_AGAIN).unref();
  }

  #found(): void {
    clearInterval(this.#looking);
    this.#looking = undefined;
  }

  async #answer(pattern: string, message: object, context: string, until: number): Promise<Reply> {
    let forget: (() => void) | undefined;
    const answer = new Promise<Reply>((resolve) => {
      let answered = false;
      const asked = this.#client.send<Reply>(pattern, message).subscribe({
        next: (reply) => {
          answered = true;
          resolve(reply);
        },
        error: (error: unknown) => resolve(broken(context, error)),
        // Comes after an answer, too: an error made for nothing was a third of what a call costs its caller.
        complete: () => answered || resolve(broken(context, 'no answer')),
      });
      forget = () => asked.unsubscribe();
    });
    try {
      return await within(until, { context }, answer);
    } finally {
      forget?.();
    }
  }

  /** A connection that could not be had is a failure that did no harm: nothing was sent. */
  async #connected(context: string, until: number): Promise<Reply | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const waitMs = Math.max(0, Math.min(CONNECT, until - Date.now()));
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no connection within ${waitMs} ms`)), waitMs);
    });
    try {
      await Promise.race([this.#client.connect(), late]);
      return undefined;
    } catch (error) {
      const { host, port } = this.address;
      return refusal(unreachable(context, `${host}:${port}: ${reasonOf(error)}`));
    } finally {
      clearTimeout(timer);
    }
  }
}

const isUnreachable = (reply: Reply): boolean => !reply.ok && reply.error.code === CONTEXT_UNREACHABLE;

/** Several instances of one side, in turn. What never got to one of them goes to the next; one that is away comes last. */
class Instances implements RemoteTransport {
  readonly name = 'tcp';
  #turn = 0;

  constructor(private readonly processes: readonly TcpTransport[]) {}

  async call(envelope: Envelope, until?: number): Promise<Reply> {
    let reply: Reply | undefined;
    for (const process of this.#inTurn()) {
      reply = await process.call(envelope, until);
      if (!isUnreachable(reply)) break;
    }
    return reply!;
  }

  deliver(context: string, events: EventEnvelope[]): Promise<Receipt[]> {
    return this.#firstOf((process) => process.deliver(context, events));
  }

  giveBack(context: string, back: GivenBack[]): Promise<void> {
    return this.#firstOf((process) => process.giveBack(context, back));
  }

  async #firstOf<T>(ask: (process: TcpTransport) => Promise<T>): Promise<T> {
    let failure: unknown;
    for (const process of this.#inTurn())
      try {
        return await ask(process);
      } catch (error) {
        if (!DomainError.is(error) || error.code !== CONTEXT_UNREACHABLE) throw error;
        failure = error;
      }
    throw failure;
  }

  #inTurn(): TcpTransport[] {
    const { processes } = this;
    this.#turn = (this.#turn + 1) % processes.length;
    const order = [...processes.slice(this.#turn), ...processes.slice(0, this.#turn)];
    return [...order.filter(({ away }) => !away), ...order.filter(({ away }) => away)];
  }
}

/** The processes that this one speaks to: one connection each, whatever it is for. */
export class TcpPeers implements Peers {
  readonly #processes = new Map<string, TcpTransport>();
  /** By side and context: the addresses that were asked for last, and the way there. */
  readonly #sides = new Map<string, { keys: readonly string[]; via: RemoteTransport }>();

  constructor(private readonly token: string) {}

  to({ context, side, addresses }: Whereabouts): RemoteTransport {
    const name = `${side} ${context}`;
    const keys = addresses.map(({ host, port }) => `${host}:${port}`);
    const known = this.#sides.get(name);
    if (known && keys.length === known.keys.length && keys.every((key, at) => key === known.keys[at])) return known.via;
    const processes = addresses.map((address, at) => this.#process(keys[at]!, address));
    const via = processes.length === 1 ? processes[0]! : new Instances(processes);
    this.#sides.set(name, { keys, via });
    if (known) this.#retireUnused();
    return via;
  }

  close(): void {
    for (const process of this.#processes.values()) process.close();
    this.#processes.clear();
    this.#sides.clear();
  }

  #process(key: string, address: Address): TcpTransport {
    let process = this.#processes.get(key);
    if (!process) this.#processes.set(key, (process = new TcpTransport(address, this.token)));
    return process;
  }

  #retireUnused(): void {
    const used = new Set([...this.#sides.values()].flatMap(({ keys }) => keys));
    for (const [key, process] of this.#processes)
      if (!used.has(key)) {
        this.#processes.delete(key);
        process.retire();
      }
  }
}
