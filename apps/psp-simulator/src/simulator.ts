import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { z } from 'zod';
import { type Authorisation, Bank, type Fact, Refusal } from './bank.js';
import { challengePage, donePage } from './pages.js';
import { Journal } from './journal.js';
import { Webhooks } from './webhooks.js';

export interface SimulatorOptions {
  host: string;
  /** 0 takes a free one. */
  port: number;
  stateDir: string;
  /** Where outcomes of challenges are told; undefined: nowhere, as if every webhook got lost. */
  webhookUrl?: string;
  webhookSecret?: string;
  /** After this time, ms, a challenge succeeds by itself; 0: a customer has to answer it. */
  challengeMs: number;
  /** How long the first request with `tok_timeout` is kept without an answer, ms. */
  hangMs: number;
}

const Amount = z.int().min(1);
const AuthorisationRequest = z.strictObject({
  token: z.string().max(100),
  amount: Amount,
  currency: z.string().length(3),
  reference: z.string().min(1).max(100),
});
const AmountRequest = z.strictObject({ amount: Amount });
const ChallengeAnswer = z.strictObject({ outcome: z.enum(['success', 'failure']) });

/** A payment provider in one process: authorise, challenge, capture, void, refund, and tell by signed webhooks. */
export class Simulator {
  readonly #server: Server;
  readonly #webhooks: Webhooks | undefined;
  readonly #timers = new Set<NodeJS.Timeout>();

  private constructor(
    private readonly options: SimulatorOptions,
    private readonly bank: Bank,
    private readonly journal: Journal<Fact>,
  ) {
    const { webhookUrl: url, webhookSecret: secret } = options;
    const delivered = (eventId: string) => this.#write({ type: 'delivered', eventId });
    this.#webhooks = url && secret ? new Webhooks({ url, secret, delivered }) : undefined;
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  /** Takes up what its journal says and listens. */
  static async start(options: SimulatorOptions): Promise<Simulator> {
    const bank = new Bank();
    const journal = await Journal.open<Fact>(join(options.stateDir, 'journal.jsonl'), (fact) => bank.apply(fact));
    const simulator = new Simulator(options, bank, journal);
    await new Promise<void>((listening, failed) => {
      simulator.#server.once('error', failed).listen(options.port, options.host, listening);
    });
    for (const notice of bank.undelivered()) simulator.#webhooks?.send(notice);
    for (const { id } of bank.open()) simulator.#answerByItself(id);
    return simulator;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    this.#webhooks?.stop();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#server.closeAllConnections();
    await new Promise((closed) => this.#server.close(closed));
    await this.journal.close();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#answer(request);
      // What somebody else's request has just done is told only when it can no longer be forgotten.
      await this.journal.settled();
    } catch (error) {
      if (error instanceof Refusal)
        answer = { status: error.status, body: { error: error.message, ...(error.at && this.#view(error.at)) } };
      else if (error instanceof z.ZodError) answer = { status: 400, body: { error: z.prettifyError(error) } };
      else {
        process.stderr.write(`psp-simulator: ${(error as Error).stack}\n`);
        answer = { status: 500, body: { error: 'Something went wrong here' } };
      }
    }
    if (answer.afterMs) {
      const timer = setTimeout(() => response.destroy(), answer.afterMs);
      response.once('close', () => clearTimeout(timer));
      return;
    }
    const html = typeof answer.body === 'string';
    response.writeHead(answer.status, { 'content-type': html ? 'text/html; charset=utf-8' : 'application/json' });
    response.end(html ? answer.body : JSON.stringify(answer.body));
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    const { pathname } = new URL(request.url ?? '/', 'http://simulator');
    const [, root, id = '', action] = pathname.split('/').map(decodeURIComponent);
    const route = `${request.method} /${[root, id && (id === 'by-reference' ? id : ':id'), action].filter(Boolean).join('/')}`;
    const json = async <T extends z.ZodType>(schema: T) => schema.parse(await bodyOf(request));

    if (route === 'GET /stats') return { status: 200, body: this.bank.stats() };
    if (route === 'POST /authorisations') return this.#authorise(keyOf(request), await json(AuthorisationRequest));
    if (root === 'authorisations' && id === 'by-reference' && request.method === 'GET')
      return { status: 200, body: this.#view(this.bank.ofReference(action ?? '')) };
    if (route === 'GET /authorisations/:id') return { status: 200, body: this.#view(this.bank.get(id)) };
    if (route === 'POST /authorisations/:id/captures') {
      const { amount } = await json(AmountRequest);
      return this.#change(keyOf(request), (key) => this.bank.capture(key, id, amount));
    }
    if (route === 'POST /authorisations/:id/voids')
      return this.#change(keyOf(request), (key) => this.bank.void(key, id));
    if (route === 'POST /authorisations/:id/refunds') {
      const { amount } = await json(AmountRequest);
      return this.#change(keyOf(request), (key) => this.bank.refund(key, id, amount));
    }
    if (route === 'GET /3ds/:id') {
      const at = this.bank.get(id);
      return { status: 200, body: wantsHtml(request) ? challengePage(at) : this.#view(at) };
    }
    if (route === 'POST /3ds/:id') {
      const { outcome } = await json(ChallengeAnswer);
      const at = await this.#complete(id, outcome === 'success' ? 'authorised' : 'declined');
      return { status: 200, body: wantsHtml(request) ? donePage(at) : this.#view(at) };
    }
    throw new Refusal(404, 'There is nothing here');
  }

  async #authorise(key: string, ask: z.output<typeof AuthorisationRequest>): Promise<Answer> {
    const fact = this.bank.authorise(key, ask);
    if (fact) await this.#write(fact);
    const at = this.bank.ofKey(key);
    if (fact && at.status === 'requires_action') this.#answerByItself(at.id);
    if (fact && ask.token === 'tok_timeout') return { status: 201, body: {}, afterMs: this.options.hangMs };
    return { status: fact ? 201 : 200, body: this.#view(at) };
  }

  async #change(key: string, decide: (key: string) => Fact | undefined): Promise<Answer> {
    const fact = decide(key);
    if (fact) await this.#write(fact);
    return { status: fact ? 201 : 200, body: this.#view(this.bank.ofKey(key)) };
  }

  async #complete(id: string, outcome: 'authorised' | 'declined'): Promise<Authorisation> {
    const fact = this.bank.challenge(id, outcome);
    await this.#write(fact);
    const notice = this.bank.undelivered().find(({ eventId }) => eventId === fact.eventId);
    if (notice) this.#webhooks?.send(notice);
    return this.bank.get(id);
  }

  #answerByItself(id: string): void {
    if (this.options.challengeMs === 0) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (this.bank.get(id).status === 'requires_action') void this.#complete(id, 'authorised');
    }, this.options.challengeMs);
    this.#timers.add(timer);
  }

  #write(fact: Fact): Promise<void> {
    this.bank.apply(fact);
    return this.journal.append(fact);
  }

  #view(at: Authorisation): object {
    const actionUrl = `http://${this.options.host}:${this.port}/3ds/${at.id}`;
    return { ...at, ...(at.status === 'requires_action' && { actionUrl }) };
  }
}

interface Answer {
  status: number;
  body: string | object;
  /** Say nothing for so long, then hang up. */
  afterMs?: number;
}

const wantsHtml = (request: IncomingMessage): boolean => request.headers.accept?.includes('text/html') ?? false;

function keyOf(request: IncomingMessage): string {
  const key = request.headers['idempotency-key'];
  if (typeof key !== 'string' || key === '') throw new Refusal(422, 'Send an Idempotency-Key');
  return key;
}

/** JSON, or a form as a browser posts it. */
async function bodyOf(request: IncomingMessage): Promise<unknown> {
  let text = '';
  for await (const chunk of request) {
    text += String(chunk);
    if (text.length > 65_536) throw new Refusal(422, 'The body is too large');
  }
  if (request.headers['content-type']?.startsWith('application/x-www-form-urlencoded'))
    return Object.fromEntries(new URLSearchParams(text));
  try {
    return JSON.parse(text || '{}');
  } catch {
    throw new Refusal(422, 'The body is not JSON');
  }
}
