import type { AddressInfo, Server, Socket } from 'node:net';
import { Controller, type ExecutionContext, type INestApplication, Logger, createParamDecorator } from '@nestjs/common';
import { ClientTCP, JsonSocket, MessagePattern, ServerTCP } from '@nestjs/microservices';
import { DomainError, errorKinds } from '@banyan/kernel';
import { currentTraceparent } from '@banyan/platform/telemetry';
import { z } from 'zod';
import type { Envelope, EventEnvelope, Receipt, Reply } from './envelope.js';
import { INPUT_INVALID, UPSTREAM_UNAVAILABLE, refusal, unreachable, within } from './failures.js';
import type { RemoteTransport } from './placement.js';
import { Receiver } from './receiver.js';

/** The longest message either way, in characters: a batch of 500 events has 0.3 million. */
const LONGEST = 16 * 1024 * 1024;
/** How long a connection may take to come about, and the receipts of a batch of events, ms. */
const CONNECT = 2_000;
const DELIVER = 8_000;

const CALL = 'banyan.call';
const DELIVERY = 'banyan.deliver';

export interface Address {
  host: string;
  port: number;
}

interface Call {
  /** Shows that a process of ours has sent it: the guard of the app has looked before a handler sees it. */
  token: string;
  envelope: unknown;
}

interface Delivery {
  token: string;
  context: string;
  events: unknown;
  traceparent?: string;
}

/** Nest's JSON over TCP, in small packets at once (Nagle would hold them back for 40 ms), and bounded. */
class RpcSocket extends JsonSocket {
  constructor(socket: Socket) {
    super(socket, {
      // Some of the next message may be in the buffer as well.
      maxBufferSize: LONGEST + 1024 * 1024,
      maxSendBufferSize: 8 * LONGEST,
      incompleteMessageTimeout: 10_000,
    });
    socket.setNoDelay(true).setKeepAlive(true, 10_000);
  }
}

class RpcServer extends ServerTCP {
  readonly #log = new Logger('rpc');

  constructor({ host, port }: Address) {
    super({ host, port, socketClass: RpcSocket });
  }

  override handleError(error: unknown): void {
    this.#log.warn({ msg: 'a connection broke', reason: String((error as Error)?.message ?? error) });
  }

  get boundPort(): number {
    return (this.unwrap<Server>().address() as AddressInfo).port;
  }
}

const Message = createParamDecorator((_: undefined, context: ExecutionContext) =>
  context.switchToRpc().getData<unknown>(),
);

/** The way in for messages of other processes. Both handlers answer with a `Reply`, whatever happens. */
@Controller()
export class RpcController {
  constructor(private readonly receiver: Receiver) {}

  @MessagePattern(CALL)
  async call(@Message() { envelope }: Call): Promise<Reply> {
    return fitting(await this.receiver.call(envelope));
  }

  @MessagePattern(DELIVERY)
  async deliver(@Message() { context, events, traceparent }: Delivery): Promise<Reply> {
    try {
      return { ok: true, output: await this.receiver.deliver(context, events, traceparent), meta: {} };
    } catch (error) {
      return refusal(
        DomainError.is(error)
          ? error
          : new DomainError('INTERNAL', 'internal', 'The events could not be taken', undefined),
      );
    }
  }
}

const fitting = (reply: Reply): Reply =>
  JSON.stringify(reply).length <= LONGEST
    ? reply
    : refusal(new DomainError('INTERNAL', 'internal', 'The answer is too long to be sent'));

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
export class TcpTransport implements RemoteTransport {
  readonly name = 'tcp';
  readonly #client: PeerClient;

  constructor(
    readonly address: Address,
    private readonly token: string,
  ) {
    this.#client = new PeerClient(address);
  }

  async call(envelope: Envelope, until = envelope.deadline): Promise<Reply> {
    const text = JSON.stringify(envelope);
    if (text.length > LONGEST)
      return refusal(
        new DomainError(INPUT_INVALID, 'too_large', `The input of ${envelope.operation} is too long to be sent`),
      );
    return this.#ask(CALL, { token: this.token, envelope } satisfies Call, envelope.context, until);
  }

  async deliver(context: string, events: EventEnvelope[]): Promise<Receipt[]> {
    const message: Delivery = { token: this.token, context, events, traceparent: currentTraceparent() };
    const reply = await this.#ask(DELIVERY, message, context, Date.now() + DELIVER);
    if (reply.ok) return reply.output as Receipt[];
    throw new DomainError(reply.error.code, reply.error.kind, reply.error.message, reply.error.data);
  }

  close(): void {
    this.#client.close();
  }

  async #ask(pattern: string, message: object, context: string, until: number): Promise<Reply> {
    const connected = await this.#connected(context, until);
    if (connected) return connected;
    let forget: (() => void) | undefined;
    const answer = new Promise<Reply>((resolve) => {
      const asked = this.#client.send<Reply>(pattern, message).subscribe({
        next: resolve,
        error: (error: unknown) => resolve(broken(context, error)),
        complete: () => resolve(broken(context, 'no answer')),
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
      return refusal(unreachable(context, `${host}:${port}: ${String((error as Error)?.message ?? error)}`));
    } finally {
      clearTimeout(timer);
    }
  }
}

const Failure = z.object({ code: z.string(), kind: z.enum(errorKinds), message: z.string() });

/** What the other side's guard or Nest itself says, or a connection that broke before the answer. */
function broken(context: string, error: unknown): Reply {
  const { data } = Failure.safeParse(error);
  if (data) return refusal(new DomainError(data.code, data.kind, data.message));
  return refusal(
    new DomainError(UPSTREAM_UNAVAILABLE, 'unavailable', `The connection to ${context} broke before its answer`, {
      context,
      retryAfterMs: 1000,
    }),
  );
}

/** The processes that this one speaks to: one connection each, whatever it is for. */
export class TcpPeers {
  readonly #peers = new Map<string, TcpTransport>();

  constructor(private readonly token: string) {}

  to(address: Address): TcpTransport {
    const key = `${address.host}:${address.port}`;
    const known = this.#peers.get(key);
    if (known) return known;
    const peer = new TcpTransport(address, this.token);
    this.#peers.set(key, peer);
    return peer;
  }

  close(): void {
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }
}
