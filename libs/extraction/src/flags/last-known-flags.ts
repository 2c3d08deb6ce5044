import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { UnleashEvents } from 'unleash-client';
import { z } from 'zod';
import { Flag } from './flag.js';
import { FlagRepository, type Segment } from './flag-repository.js';
import { FLAG_PREFIX } from './names.js';

export interface FlagServer {
  /** Bases of the API: `http://127.0.0.1:8090/api/`. All know the same flags; while one is away the next is asked. */
  urls: readonly string[];
  apiToken: string;
  appName: string;
  /** Milliseconds between two questions. */
  refreshMs: number;
  /** Milliseconds that one question may take: 2000 by default. */
  timeoutMs?: number;
  /** Where the last known flags are kept, for the next start. */
  backupFile: string;
  /** For how long the server may be away before that is told: 5000 by default. Who starts with it is there first. */
  patienceMs?: number;
  /** Told when the server goes away, comes back, or says what cannot be meant. */
  log?: (message: string) => void;
}

const Answer = z.looseObject({ features: z.array(z.unknown()), segments: z.array(z.unknown()).nullish() });
const Named = z.looseObject({ name: z.string() });
const KnownSegment = z.looseObject({ id: z.number(), constraints: z.array(z.unknown()) });

/* 14 flags are about 6 kB. */
const ANSWER_LIMIT_BYTES = 4 << 20;
/* A server that is away is asked less and less often, but at least this often: it is to be noticed when it is back. */
const SLOWEST_MS = 5_000;

/**
 * The flags of a server, asked again and again, of which the last known ones hold: while the server is down, slow or
 * refuses us, and flag by flag when one is missing or makes no sense. They are kept in a file, so they hold across a
 * restart.
 *
 * It stands in for the repository of unleash-client, which turns a flag off that is missing from an answer, takes half
 * a flag as off, stops asking for ever after one 401, and needs minutes to get back to its pace after an outage.
 */
export class LastKnownFlags extends FlagRepository {
  #etag: string | undefined;
  #saved: string | undefined;
  #failures = 0;
  #told = new Map<string, string>();
  #missing = new Map<string, string>();
  #away: { since: number; told: boolean; reason: string } | undefined;
  #running = new AbortController();
  #answered = false;
  #turn = 0;
  #wake = new AbortController();

  constructor(private readonly server: FlagServer) {
    super();
  }

  /** Loads what was known and asks the server; waits for its first answer a second at most. */
  override async start(): Promise<void> {
    this.#load();
    await super.start();
    void this.#poll();
    await Promise.race([
      new Promise((resolve) => this.once(FIRST, resolve)),
      sleep(1_000, undefined, { signal: this.#running.signal, ref: false }).catch(() => {}),
    ]);
  }

  override stop(): void {
    this.#running.abort();
    this.#wake.abort();
    super.stop();
  }

  /** Asks now instead of when it is time. */
  refresh(): void {
    this.#wake.abort();
  }

  /** Has the server given a usable answer since the start? */
  get answered(): boolean {
    return this.#answered;
  }

  /** Why the last known state of a flag holds instead of the server's; undefined when it is the server's. */
  problem(name: string): string | undefined {
    return this.#away?.reason ?? this.#missing.get(name);
  }

  async #poll(): Promise<void> {
    const { signal } = this.#running;
    while (!signal.aborted) {
      const base = this.server.urls[this.#turn]!;
      try {
        await this.#ask(base);
        this.#failures = 0;
        this.#reached();
      } catch (error) {
        if (signal.aborted) return;
        this.#turn = (this.#turn + 1) % this.server.urls.length;
        // All of them are asked before anybody waits.
        if (this.#turn > 0) continue;
        this.#failures++;
        this.#lost(base, error);
      }
      this.emit(FIRST);
      this.#wake = new AbortController();
      const pause = Math.min(
        this.server.refreshMs * 2 ** Math.min(this.#failures, 10),
        Math.max(this.server.refreshMs, SLOWEST_MS),
      );
      // Spread: many routers that were started together must not ask together for ever.
      const spread = pause * (0.9 + Math.random() * 0.2);
      await sleep(spread, undefined, { signal: this.#wake.signal, ref: false }).catch(() => {});
    }
  }

  async #ask(base: string): Promise<void> {
    const url = new URL('client/features', base);
    url.searchParams.set('namePrefix', FLAG_PREFIX);
    const answer = await fetch(url, {
      headers: {
        authorization: this.server.apiToken,
        accept: 'application/json',
        'unleash-appname': this.server.appName,
        'unleash-client-spec': '5.2.0',
        'unleash-interval': String(this.server.refreshMs),
        ...(this.#etag && { 'if-none-match': this.#etag }),
      },
      redirect: 'error',
      signal: AbortSignal.any([this.#running.signal, AbortSignal.timeout(this.server.timeoutMs ?? 2_000)]),
    });
    if (answer.status === 304) {
      this.emit(UnleashEvents.Unchanged);
      return;
    }
    if (answer.status !== 200) {
      await answer.body?.cancel();
      throw new Error(`it answered ${answer.status}`);
    }
    this.#learn(Answer.parse(JSON.parse(await bounded(answer))));
    this.#etag = answer.headers.get('etag') ?? undefined;
  }

  /** Takes over what makes sense; of the rest the last known state stays. */
  #learn(answer: z.output<typeof Answer>): void {
    const heard = new Map<string, Flag>();
    const refused = new Map<string, string>();
    for (const each of answer.features) {
      const name = Named.safeParse(each).data?.name;
      if (!name?.startsWith(FLAG_PREFIX)) continue;
      const flag = Flag.safeParse(each);
      if (flag.success) heard.set(name, sticky(flag.data));
      else refused.set(name, `the flag ${name} makes no sense (${z.prettifyError(flag.error).split('\n')[0]})`);
    }
    const flags = new Map([...this.flags, ...heard]);
    this.#missing = refused;
    for (const name of this.flags.keys())
      if (!heard.has(name) && !refused.has(name)) refused.set(name, `the flag ${name} is missing`);
    this.flags = flags;
    this.segments = new Map(
      (answer.segments ?? []).flatMap((each) => {
        const segment = KnownSegment.safeParse(each);
        return segment.success ? [[segment.data.id, segment.data as unknown as Segment] as const] : [];
      }),
    );
    for (const [name, problem] of refused) this.#tell(name, `${problem}: its last known state holds`);
    for (const name of heard.keys()) this.#told.delete(name);
    this.#save();
    this.emit(UnleashEvents.Changed, this.getToggles());
  }

  #reached(): void {
    this.#answered = true;
    if (this.#away?.told) this.server.log?.('The flag server answers again');
    this.#away = undefined;
  }

  #lost(base: string, error: unknown): void {
    const reason = `the flag server at ${new URL(base).host} gives no usable answer (${reasonOf(error)})`;
    this.#away = { since: performance.now(), told: false, ...this.#away, reason };
    if (this.#away.told || performance.now() - this.#away.since < (this.server.patienceMs ?? 5_000)) return;
    this.#away.told = true;
    this.server.log?.(`${reason}: the last known flags hold`);
  }

  #tell(name: string, message: string): void {
    if (this.#told.get(name) === message) return;
    this.#told.set(name, message);
    this.server.log?.(message);
  }

  #load(): void {
    let text: string;
    try {
      text = readFileSync(this.server.backupFile, 'utf8');
    } catch {
      return; // the first start
    }
    try {
      const { features, segments } = Answer.parse(JSON.parse(text));
      this.flags = new Map(features.map((each) => Flag.parse(each)).map((flag) => [flag.name, flag]));
      this.segments = new Map(
        (segments ?? []).map((each) => KnownSegment.parse(each)).map((each) => [each.id, each as unknown as Segment]),
      );
      this.#saved = text;
    } catch {
      this.server.log?.(`${this.server.backupFile} cannot be read: starting without the last known flags`);
    }
  }

  #save(): void {
    const text = JSON.stringify({ version: 2, features: this.getToggles(), segments: [...this.segments.values()] });
    if (text === this.#saved) return;
    const fresh = `${this.server.backupFile}.${process.pid}`;
    try {
      mkdirSync(dirname(this.server.backupFile), { recursive: true });
      writeFileSync(fresh, text, { mode: 0o600 });
      renameSync(fresh, this.server.backupFile);
      this.#saved = text;
    } catch (error) {
      this.#tell('backup', `The last known flags cannot be kept in ${this.server.backupFile}: ${reasonOf(error)}`);
    }
  }
}

const FIRST = 'first';

/** Random stickiness would send each read of one caller to another side. */
function sticky(flag: Flag): Flag {
  const strategies = flag.strategies.map((strategy) =>
    strategy.parameters['stickiness'] === 'random'
      ? { ...strategy, parameters: { ...strategy.parameters, stickiness: 'default' } }
      : strategy,
  );
  return { ...flag, strategies };
}

async function bounded(answer: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of answer.body ?? []) {
    size += (chunk as Uint8Array).length;
    if (size > ANSWER_LIMIT_BYTES) throw new Error('its answer has no end');
    chunks.push(chunk as Uint8Array);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function reasonOf(error: unknown): string {
  if (error instanceof z.ZodError || error instanceof SyntaxError) return 'its answer makes no sense';
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return 'it takes too long';
  const cause = error.cause as { code?: string; message?: string } | undefined;
  return cause?.code ?? cause?.message ?? error.message;
}
