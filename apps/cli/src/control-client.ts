import { ControlPlanes } from '@banyan/extraction/control-planes';
import { Stage } from '@banyan/extraction/stage';
import { ContextStatus, GateReading } from '@banyan/extraction/status';
import type { Divergence } from '@banyan/extraction/parity';
import type { Config } from '@banyan/platform/config';
import { EventSourceParserStream } from 'eventsource-parser/stream';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { CommandError, sentence } from './exit.js';
import { controlUrlsOf, readRuntime } from './runtime-file.js';

const ANSWER_LIMIT_MS = 15_000;

const Problem = z.object({ status: z.int(), code: z.string().optional(), detail: z.string().optional() });

/** The readings with which a stage was entered, and whether they were skipped. */
const Evidence = z.object({
  at: z.string(),
  from: Stage,
  to: Stage,
  gates: z.array(GateReading),
  forced: z.boolean(),
});
export type Evidence = z.output<typeof Evidence>;

/** An event that a subscriber was given too often in vain. */
const DeadLetter = z.object({
  context: z.string(),
  eventId: z.string(),
  subscriber: z.string(),
  type: z.string(),
  aggregate: z.string(),
  attempts: z.number(),
  error: z.string().nullable(),
  occurredAt: z.string(),
});
export type DeadLetter = z.output<typeof DeadLetter>;

const items = <T extends z.ZodType>(item: T) => z.object({ items: z.array(item) });

/** The control plane's API, as an operator. Every failure is a CommandError that says what to do next. */
export class ControlClient {
  readonly #planes: ControlPlanes;

  /** `urls`: of several control planes one acts; the others say that they stand by. */
  constructor(
    urls: readonly string[],
    private readonly token: string,
  ) {
    this.#planes = new ControlPlanes(urls);
  }

  /** The one that answered last. */
  get url(): string {
    return this.#planes.current;
  }

  /** The control planes that CONTROL_URL names, or those of the Banyan which runs on the state folder. */
  static async find({ stateDir, extraction }: Config): Promise<ControlClient> {
    const runtime = await readRuntime(stateDir);
    const urls = extraction.controlUrls ?? controlUrlsOf(runtime);
    if (urls.length === 0)
      throw new CommandError(
        'NOT_RUNNING',
        `Nothing runs on ${stateDir}:`,
        'start it with npm start, or set CONTROL_URL and BANYAN_OPERATOR_TOKEN.',
      );
    const file = join(stateDir, 'operator-token');
    const token = extraction.operatorToken ?? (await readFile(file, 'utf8').catch(() => '')).trim();
    if (!token)
      throw new CommandError('BAD_USAGE', `There is no operator token in ${file}:`, 'set BANYAN_OPERATOR_TOKEN.');
    return new ControlClient(urls, token);
  }

  async contexts(): Promise<ContextStatus[]> {
    return (await this.get('/control/contexts', items(ContextStatus))).items;
  }

  /** Throws BAD_USAGE with the known ones when there is none of this name. */
  context(context: string): Promise<ContextStatus> {
    return this.get(`/control/contexts/${encodeURIComponent(context)}`, ContextStatus);
  }

  async divergences(context: string): Promise<Divergence[]> {
    // Loaded here: it brings the whole comparison along, which no other command needs (200 ms).
    const { Divergence } = await import('@banyan/extraction/parity');
    return (await this.get(`/control/contexts/${encodeURIComponent(context)}/divergences`, items(Divergence))).items;
  }

  async acknowledge(context: string, id: string, reason: string): Promise<void> {
    const path = `/control/contexts/${encodeURIComponent(context)}/divergences/${encodeURIComponent(id)}/acknowledge`;
    await this.post(path, { reason }, z.unknown());
  }

  async evidence(context: string): Promise<Evidence[]> {
    return (await this.get(`/control/contexts/${encodeURIComponent(context)}/evidence`, items(Evidence))).items;
  }

  target(
    context: string,
    wish: { stage: Stage; percent?: number; force?: boolean; reason?: string },
  ): Promise<ContextStatus> {
    return this.post(`/control/contexts/${encodeURIComponent(context)}/target`, wish, ContextStatus);
  }

  rollback(context: string, wish: { to?: Stage; reason?: string }): Promise<ContextStatus> {
    return this.post(`/control/contexts/${encodeURIComponent(context)}/rollback`, wish, ContextStatus);
  }

  freeze(context: string, wish: { frozen: boolean; reason?: string }): Promise<ContextStatus> {
    return this.post(`/control/contexts/${encodeURIComponent(context)}/freeze`, wish, ContextStatus);
  }

  async deadLetters(): Promise<DeadLetter[]> {
    return (await this.get('/control/dead-letters', items(DeadLetter))).items;
  }

  /** How many are delivered again. */
  async redrive(wish: { context: string; ids?: string[] }): Promise<number> {
    return (await this.post('/control/dead-letters/redrive', wish, z.object({ redriven: z.int() }))).redriven;
  }

  /** What every context is at now, and then each change, until the connection ends. */
  async *stream(signal: AbortSignal): AsyncGenerator<ContextStatus> {
    const response = await this.fetch('/control/stream', { signal, headers: { accept: 'text/event-stream' } });
    if (!response.ok) throw await this.refusal(response);
    const events = response.body?.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
    for await (const { event, data } of events ?? [])
      if (event === 'context') yield this.understood(ContextStatus, JSON.parse(data));
  }

  private async get<T extends z.ZodType>(path: string, schema: T): Promise<z.output<T>> {
    return this.answer(await this.fetch(path, { signal: AbortSignal.timeout(ANSWER_LIMIT_MS) }), schema);
  }

  private async post<T extends z.ZodType>(path: string, body: object, schema: T): Promise<z.output<T>> {
    const response = await this.fetch(path, {
      method: 'POST',
      signal: AbortSignal.timeout(ANSWER_LIMIT_MS),
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return this.answer(response, schema);
  }

  private async answer<T extends z.ZodType>(response: Response, schema: T): Promise<z.output<T>> {
    if (!response.ok) throw await this.refusal(response);
    const text = await response.text();
    return this.understood(schema, text === '' ? undefined : JSON.parse(text));
  }

  private async fetch(path: string, { headers, ...init }: RequestInit = {}): Promise<Response> {
    const authorization = `Bearer ${this.token}`;
    let nobodyActs: CommandError | undefined;
    const response = await this.#planes.ask(async (url) => {
      try {
        const answer = await fetch(`${url}${path}`, { ...init, headers: { ...headers, authorization } });
        if (answer.status !== 503) return answer;
        const { detail = 'No control plane acts just now' } =
          Problem.safeParse(await answer.json().catch(() => undefined)).data ?? {};
        nobodyActs = new CommandError('UNREACHABLE', sentence(detail), 'npx banyan status says what runs.');
      } catch (error) {
        if ((error as Error).name === 'AbortError') throw error;
      }
      return undefined;
    });
    if (response) return response;
    if (nobodyActs) throw nobodyActs;
    const detail = `The control plane does not answer at ${this.#planes.urls.join(' or ')}:`;
    throw new CommandError('UNREACHABLE', detail, 'npx banyan status says what runs; its log says why.');
  }

  private understood<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    const detail = `What answers at ${this.url} is not the control plane of this version:`;
    throw new CommandError('FAILED', detail, 'look at CONTROL_URL, or use the banyan of the version that runs.');
  }

  private async refusal(response: Response): Promise<CommandError> {
    const { status } = response;
    if (status === 401 || status === 403)
      return new CommandError(
        'REFUSED',
        `The control plane at ${this.url} does not accept this operator token:`,
        'set BANYAN_OPERATOR_TOKEN, or take the state folder of the Banyan that runs.',
      );
    const problem = Problem.safeParse(await response.json().catch(() => undefined));
    const { code, detail = `The control plane answered ${status}.` } = problem.data ?? {};
    if (code === 'CONTEXT_UNKNOWN') {
      const known = await this.contexts().catch(() => []);
      const names = known.map(({ context }) => context).join(', ');
      return new CommandError('BAD_USAGE', sentence(detail), names && `The contexts are ${names}.`);
    }
    if (status === 400 || status === 404) return new CommandError('BAD_USAGE', sentence(detail), '');
    if (status === 409) return new CommandError('REFUSED', sentence(detail), '');
    return new CommandError('FAILED', sentence(detail), 'Its log is control-plane.log in the state folder.');
  }
}
