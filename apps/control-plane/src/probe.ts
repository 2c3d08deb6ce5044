import { type ContextRouting, type Routing, reached } from '@banyan/extraction';
import {
  type Answer,
  type AskOptions,
  Figures,
  Mirror,
  type MirrorOptions,
  ReadOperations,
  type Report,
  type Rules,
  TooLarge,
  httpReadsOf,
} from '@banyan/extraction/parity';
import { type AnyContract, type AnyQuery, type Example, type Side, newId, system } from '@banyan/kernel';
import type { Envelope, Peers, Reply } from '@banyan/messaging';
import { statusOfKind } from '@banyan/platform/http';
import { request } from 'undici';

export interface ProbeOptions {
  contracts: readonly AnyContract[];
  /** One name per process and start. */
  instance: string;
  routing(): Routing | undefined;
  transports: Pick<Peers, 'to'>;
  /** Where its figures go; called when there is something new, twice a second at most. */
  report(report: Report): void;
  mirror?: Partial<MirrorOptions>;
}

/** Reads of one context, a second: until there is enough to decide on, afterwards, and when the context has left. */
const FAST = 40;
const SLOW = 4;
const LIVE = 1;
/** What is enough, with something to spare for a few errors at the beginning. */
const ENOUGH = 600;
/** Of all contexts together: the probe runs on the machine whose callers it must not disturb. */
const IN_ALL = 80;
const TICK_MS = 25;
const REPORT_MS = 500;
/** New orders, new products: how often inputs are drawn anew. */
const DRAW_MS = 5_000;
/** No more pages than this are followed from one example. */
const MAX_FOLLOWING = 4;

const prober = system('probe');

/** One input of one operation, and how a side is asked. */
interface Question {
  request: string;
  ask(side: Side, options: AskOptions): Promise<Answer>;
}

/** Its own questions, and those that an answer led to (the next page of a list). */
interface Operation {
  name: string;
  rules: Rules;
  questions: Question[];
  following: Question[];
  turn: number;
}

interface Probed {
  since: string;
  operations: Operation[];
  turn: number;
  asked: number;
  nextAt: number;
  drawnAt: number;
  drawing: boolean;
}

/**
 * Reads of our own, so that a quiet system collects evidence too: the examples in the contracts, and every public HTTP
 * read, asked of both sides and compared. It makes queries and GETs, nothing else, and its figures are told apart from
 * those about real callers.
 */
export class Probe {
  readonly #figures = new Figures();
  readonly #mirror: Mirror;
  readonly #operations: ReadOperations;
  readonly #contracts: ReadonlyMap<string, AnyContract>;
  readonly #contexts = new Map<string, Probed>();
  #timers: NodeJS.Timeout[] = [];
  #turn = 0;

  constructor(private readonly options: ProbeOptions) {
    this.#mirror = new Mirror(this.#figures, { concurrency: 16, queue: 0, ...options.mirror });
    this.#operations = new ReadOperations(options.contracts);
    this.#contracts = new Map(options.contracts.map((contract) => [contract.name, contract]));
  }

  start(): void {
    this.#timers = [setInterval(() => this.#tick(), TICK_MS), setInterval(() => this.#report(), REPORT_MS)];
    for (const timer of this.#timers) timer.unref();
  }

  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.#mirror.close();
    this.#report();
  }

  #report(): void {
    const report = this.#figures.report(this.options.instance, 'probe');
    if (report) this.options.report(report);
  }

  #tick(): void {
    const routing = this.options.routing();
    const now = performance.now();
    for (const context of this.#contexts.keys()) if (!isCompared(routing?.contexts[context])) this.#forget(context);
    let room = (IN_ALL * TICK_MS) / 1_000;
    // Those that have waited longest first: no context takes all the room of a tick.
    const due = Object.entries(routing?.contexts ?? {})
      .filter(([context, state]) => isCompared(state) && this.#contracts.has(context))
      .map(([context, state]) => ({ context, state, probed: this.#probed(context, state) }))
      .filter(({ probed }) => probed.nextAt <= now)
      .sort((a, b) => a.probed.nextAt - b.probed.nextAt);
    for (const { context, state, probed } of due) {
      if (room < 1 || !this.#mirror.wants('GET')) return;
      room -= 1;
      if (now - probed.drawnAt > DRAW_MS && !probed.drawing) void this.#draw(context, probed);
      const perSecond = state.stage === 'live' ? LIVE : probed.asked < ENOUGH ? FAST : SLOW;
      // From when it was due, so that a late tick does not slow the probe down; but a pause is not made up for.
      probed.nextAt = Math.max(probed.nextAt + 1_000 / perSecond, now - 100);
      this.#askNext(context, state, probed);
    }
  }

  #forget(context: string): void {
    this.#contexts.delete(context);
    this.#figures.end(context);
  }

  #probed(context: string, { since }: ContextRouting): Probed {
    let probed = this.#contexts.get(context);
    if (probed?.since === since) return probed;
    const operations = this.#operationsOf(context, new Map());
    probed = { since, operations, turn: 0, asked: 0, nextAt: performance.now(), drawnAt: -Infinity, drawing: false };
    this.#contexts.set(context, probed);
    this.#figures.begin(context, since);
    return probed;
  }

  /** Each operation in its turn, so that all have the same number of samples. */
  #askNext(context: string, { owner, since }: ContextRouting, probed: Probed): void {
    const { operations } = probed;
    for (let tried = 0; tried < operations.length; tried += 1) {
      const operation = operations[probed.turn++ % operations.length]!;
      const { name, rules, questions, following } = operation;
      const question = following.shift() ?? questions[operation.turn++ % questions.length];
      if (!question) continue;
      probed.asked += 1;
      const sample = { context, operation: name, since, owner, rules, request: question.request };
      void this.#mirror.take({ ...sample, ask: (side, options) => this.#measured(context, side, question, options) });
      return;
    }
  }

  async #measured(context: string, side: Side, question: Question, options: AskOptions): Promise<Answer> {
    const from = performance.now();
    let failed = true;
    try {
      const answer = await question.ask(side, options);
      failed = answer.status >= 500;
      return answer;
    } finally {
      this.#figures.served(context, side, performance.now() - from, failed);
    }
  }

  /** Fetches the inputs that other queries have to tell. What cannot be had now is drawn next time. */
  async #draw(context: string, probed: Probed): Promise<void> {
    probed.drawing = true;
    try {
      const drawn = new Map<string, Example<unknown>[]>();
      for (const [name, query] of Object.entries<AnyQuery>(this.#contracts.get(context)!.queries)) {
        if (!query.drawn) continue;
        const { from, input, pick } = query.drawn;
        const source = this.options.contracts.find((each) => Object.values<AnyQuery>(each.queries).includes(from));
        const [asked] = Object.entries<AnyQuery>(source?.queries ?? {}).find(([, each]) => each === from) ?? [];
        const owner = source && (this.options.routing()?.contexts[source.name]?.owner ?? 'monolith');
        if (!source || !asked || !owner) continue;
        const reply = await this.#call(source.name, asked, { input }, owner, Date.now() + 2_000);
        if (reply.ok) drawn.set(name, pick(reply.output));
      }
      const operations = this.#operationsOf(context, drawn);
      for (const operation of operations)
        operation.turn = probed.operations.find(({ name }) => name === operation.name)?.turn ?? 0;
      probed.operations = operations;
    } finally {
      probed.drawing = false;
      probed.drawnAt = performance.now();
    }
  }

  #operationsOf(context: string, drawn: ReadonlyMap<string, Example<unknown>[]>): Operation[] {
    const contract = this.#contracts.get(context)!;
    const examples = new Map(
      Object.entries<AnyQuery>(contract.queries).map(([name, query]) => [
        name,
        [...(query.examples ?? []).map((input): Example<unknown> => ({ input })), ...(drawn.get(name) ?? [])],
      ]),
    );
    const queries = [...examples].map(([query, inputs]) => {
      const operation = this.#operation(`${context}.${query}`);
      operation.questions = inputs.map((example) => this.#asQuery(context, query, example, operation.following));
      return operation;
    });
    const reads = httpReadsOf(contract).filter((read) => read.public);
    const overHttp = reads.map(({ operation: name, query }) => {
      const operation = this.#operation(name);
      operation.questions = (examples.get(query) ?? [])
        .filter(({ as }) => !as)
        .map(({ input }) => this.#asGet(context, name.slice('GET '.length), input as Record<string, unknown>));
      return operation;
    });
    return [...queries, ...overHttp];
  }

  #operation(name: string): Operation {
    return { name, rules: this.#operations.rulesOf(name), questions: [], following: [], turn: 0 };
  }

  /** A query over RPC, asked of the one side that is meant: no router is on the way. */
  #asQuery(context: string, query: string, { input, as }: Example<unknown>, following: Question[]): Question {
    return {
      request: JSON.stringify(input),
      ask: async (side, { signal, maxBytes }) => {
        signal.throwIfAborted();
        const reply = await this.#call(context, query, { input, as }, side, Date.now() + 2_000);
        if (!reply.ok) {
          const { code, kind, message, data } = reply.error;
          return asJson(statusOfKind[kind], { code, message, data }, maxBytes);
        }
        const { nextCursor } = (reply.output ?? {}) as { nextCursor?: unknown };
        if (typeof nextCursor === 'string' && following.length < MAX_FOLLOWING && !hasCursor(input))
          following.push(
            this.#asQuery(context, query, { input: { ...(input as object), cursor: nextCursor }, as }, []),
          );
        return asJson(200, reply.output, maxBytes);
      },
    };
  }

  async #call(context: string, operation: string, example: Example<unknown>, side: Side, deadline: number) {
    const state = this.options.routing();
    const addresses = side === 'monolith' ? state?.monolith.rpc : state?.contexts[context]?.service?.rpc;
    if (!addresses) throw new Error(`Nobody knows where the ${side} of ${context} is`);
    const { input, as = prober } = example;
    const envelope: Envelope = { id: newId(), context, operation, input, actor: as, at: Date.now(), deadline };
    const reply: Reply = await this.options.transports.to({ context, side, addresses }).call(envelope);
    return reply;
  }

  /** Of several instances one, and the next when that one is away: a dead instance says nothing about its side. */
  async #get(
    origins: readonly string[],
    path: string,
    options: { headers: Record<string, string>; signal: AbortSignal },
  ) {
    const first = this.#turn++;
    for (let tried = 1; ; tried++)
      try {
        return await request(`${origins[(first + tried) % origins.length]}${path}`, options);
      } catch (error) {
        if (tried >= origins.length || options.signal.aborted) throw error;
      }
  }

  /** A public GET: what the route's parameters do not take of the input goes into the query string. */
  #asGet(context: string, template: string, input: Record<string, unknown>): Question {
    const left = { ...input };
    const path = template.replace(/\{(\w+)\}/g, (_, name: string) => {
      const value = String(left[name]);
      delete left[name];
      return encodeURIComponent(value);
    });
    const search = new URLSearchParams(left as Record<string, string>).toString();
    return {
      request: path,
      ask: async (side, { signal, maxBytes }) => {
        const state = this.options.routing();
        const origins = side === 'monolith' ? state?.monolith.http : state?.contexts[context]?.service?.http;
        if (!origins) throw new Error(`Nobody knows where the ${side} of ${context} is`);
        const headers = { 'user-agent': 'banyan-probe', 'banyan-placement': `${context}=${side}` };
        const {
          statusCode,
          headers: told,
          body,
        } = await this.#get(origins, `${path}${search && `?${search}`}`, { headers, signal });
        const chunks: Buffer[] = [];
        let length = 0;
        for await (const chunk of body as AsyncIterable<Buffer>) {
          length += chunk.length;
          if (length > maxBytes) throw new TooLarge();
          chunks.push(chunk);
        }
        const contentType = told['content-type'];
        return { status: statusCode, contentType: contentType?.toString(), body: Buffer.concat(chunks) };
      },
    };
  }
}

const isCompared = (state: ContextRouting | undefined): state is ContextRouting =>
  state !== undefined && reached(state.stage, 'shadow') && state.service !== null;

const hasCursor = (input: unknown): boolean => typeof (input as { cursor?: unknown })?.cursor === 'string';

function asJson(status: number, value: unknown, maxBytes: number): Answer {
  const body = Buffer.from(JSON.stringify(value));
  if (body.length > maxBytes) throw new TooLarge();
  return { status, contentType: 'application/json', body };
}
