import type { INestApplication } from '@nestjs/common';
import { type MessageHandler, ServerNats } from '@nestjs/microservices';
import type { Msg } from '@nats-io/transport-node';
import { type AnyContract, DomainError, type Side } from '@banyan/kernel';
import { currentTraceparent } from '@banyan/platform/telemetry';
import type { Envelope, EventEnvelope, GivenBack, Receipt, Reply } from './envelope.js';
import { DEADLINE_EXCEEDED, refusal, unreachable } from './failures.js';
import type { Listening, Nats } from './nats.js';
import { BEAT, NatsAwayError, NatsLateError } from './nats-requests.js';
import type { Peers, RemoteTransport, Whereabouts } from './placement.js';
import { Receiver } from './receiver.js';
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
import { callSubject, deliverSubject, giveBackSubject, heardBy, queueGroup } from './subjects.js';

/** What Nest puts on the wire: a request, and its one answer. */
interface Request {
  pattern: string;
  data: object;
  id: string;
}
interface Answer {
  id: string;
  response?: Reply;
  err?: unknown;
  isDisposed?: boolean;
}

const encoder = new TextEncoder();
const encode = (packet: Request | Answer): Uint8Array => encoder.encode(JSON.stringify(packet));

/** Where a process listens: as one side of some contexts. The queue group gives each message to one process of that side. */
export interface Post {
  nats: Nats;
  side: Side;
  serves: readonly AnyContract[];
  /** All there are: who subscribes to whom. */
  contracts: readonly AnyContract[];
}

/** Nest's own NATS transport on the process's one connection, with the subjects of the contexts that live here. */
class RpcServer extends ServerNats {
  readonly #listening: Listening[] = [];
  /** What is being handled, and since when. */
  readonly #running = new Map<Msg, number>();
  readonly #beat = setInterval(() => this.#saySo(), BEAT).unref();

  constructor(private readonly post: Post) {
    super({});
  }

  /* One connection per process, made, watched and closed elsewhere. */
  override createNatsClient(): Promise<Nats['connection']> {
    return Promise.resolve(this.post.nats.connection);
  }
  override async handleStatusUpdates(): Promise<void> {}
  override async close(): Promise<void> {
    await this.leave();
    clearInterval(this.#beat);
  }

  /* Nest looks for JSON in the pattern first, and the exception costs 11 us. */
  override getHandlerByPattern(pattern: string): MessageHandler | null {
    return this.messageHandlers.get(pattern) ?? null;
  }

  override start(listening: (error?: unknown) => void): void {
    this.#subscribe().then(() => listening(), listening);
  }

  async #subscribe(): Promise<void> {
    const { nats, side, serves, contracts } = this.post;
    for (const contract of serves)
      for (const { subject, pattern } of heardBy(side, contract, contracts)) {
        const handle = this.getMessageHandler(pattern) as (error: null, message: Msg) => Promise<void>;
        this.#listening.push(
          nats.listen(subject, (message) => void handle(null, message), queueGroup(side, contract.name)),
        );
      }
    await nats.settled();
  }

  /** Takes no more messages, and resolves when those that were on their way are being handled. */
  async leave(): Promise<void> {
    await Promise.all(this.#listening.splice(0).map((each) => each.leave()));
  }

  /** Whoever waits for a slow answer is told that somebody is at it. */
  #saySo(): void {
    const before = Date.now() - BEAT / 2;
    for (const [message, since] of this.#running) if (since < before) this.post.nats.answer(message, nothing);
  }

  override getPublisher(message: Msg, id: string): (answer: Omit<Answer, 'id'>) => void {
    this.#running.set(message, Date.now());
    return (answer) => {
      this.#running.delete(message);
      let packet = encode({ ...answer, id });
      if (packet.length > this.post.nats.maxPayload) packet = encode({ id, response: tooLong(), isDisposed: true });
      this.post.nats.answer(message, packet);
    };
  }
}

const nothing = new Uint8Array();

/**
 * Lets other processes in through NATS: to be called on an initialised app that has the `RpcController`. The app's guards
 * cover the handlers. Rejects with a NatsUnavailableError when NATS does not permit it.
 */
export async function listenNats(app: INestApplication, post: Post): Promise<void> {
  const strategy = new RpcServer(post);
  const server = app.connectMicroservice({ strategy }, { inheritAppConfig: true });
  await server.listen();
  // Before the app refuses what still comes: the other processes of this side get it then.
  app.get(Receiver).throughDoor(() => strategy.leave());
}

/** One side of all its contexts, however many processes it has. */
class NatsTransport implements RemoteTransport {
  readonly name = 'nats';

  constructor(
    private readonly side: Side,
    private readonly nats: Nats,
    private readonly token: string,
  ) {}

  async call(envelope: Envelope, until = envelope.deadline): Promise<Reply> {
    const { context, operation } = envelope;
    const message = encode({ pattern: CALL, id: ID, data: { token: this.token, envelope } satisfies Call });
    if (message.length > this.nats.maxPayload) return inputTooLong(operation);
    return this.#ask(callSubject(this.side, context, operation), message, context, until);
  }

  /** In as many messages as it takes. An event that fits in none of them fails, as one does that its subscriber refuses. */
  async deliver(context: string, events: EventEnvelope[]): Promise<Receipt[]> {
    const subject = deliverSubject(this.side, context);
    const receipts: Receipt[] = [];
    const until = Date.now() + DELIVER;
    for (const some of this.#fitting(events)) {
      const data: Delivery = { token: this.token, context, events: some, traceparent: currentTraceparent() };
      const message = encode({ pattern: DELIVERY, id: ID, data });
      if (message.length > this.nats.maxPayload)
        receipts.push({
          id: some[0]!.id,
          verdict: 'failed',
          error: `longer than NATS takes (${this.nats.maxPayload})`,
        });
      else receipts.push(...outputOf<Receipt[]>(await this.#ask(subject, message, context, until)));
    }
    return receipts;
  }

  async giveBack(context: string, back: GivenBack[]): Promise<void> {
    const data: Return = { token: this.token, context, back };
    const message = encode({ pattern: GIVING_BACK, id: ID, data });
    outputOf(await this.#ask(giveBackSubject(this.side, context), message, context, Date.now() + DELIVER));
  }

  async #ask(subject: string, message: Uint8Array, context: string, until: number): Promise<Reply> {
    try {
      const answer = (await this.nats.request(subject, message, until - Date.now())).json<Answer>();
      return answer.response ?? broken(context, answer.err ?? 'no answer');
    } catch (error) {
      if (error instanceof NatsAwayError) return refusal(unreachable(context, error.message, error));
      if (error instanceof NatsLateError)
        return refusal(new DomainError(DEADLINE_EXCEEDED, 'unavailable', `No answer from ${context} in time`));
      return broken(context, error);
    }
  }

  #fitting(events: EventEnvelope[]): EventEnvelope[][] {
    const most = this.nats.maxPayload - ROOM;
    const parts: EventEnvelope[][] = [];
    let left = 0;
    for (const event of events) {
      const size = Buffer.byteLength(JSON.stringify(event)) + 1;
      if (size > left) {
        parts.push([]);
        left = most;
      }
      parts.at(-1)!.push(event);
      left -= size;
    }
    return parts;
  }
}

/** Answers come to an inbox of their own: the id that Nest wants tells nothing. */
const ID = '-';
/** What a message has besides its events, in bytes: token, names, trace. */
const ROOM = 1_024;

/** All other processes, by what they serve: NATS knows where they are. */
export class NatsPeers implements Peers {
  readonly #sides: Readonly<Record<Side, RemoteTransport>>;

  constructor(nats: Nats, token: string) {
    const at = (side: Side) => new NatsTransport(side, nats, token);
    this.#sides = { monolith: at('monolith'), service: at('service') };
  }

  to({ side }: Whereabouts): RemoteTransport {
    return this.#sides[side];
  }

  /** The connection belongs to the process, and ends with it. */
  close(): void {}
}
