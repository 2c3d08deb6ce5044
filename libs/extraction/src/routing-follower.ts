import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { rootLogger } from '@banyan/platform/telemetry';
import { EventSourceParserStream } from 'eventsource-parser/stream';
import { Routing } from './routing.js';

export interface RoutingFollowerOptions {
  /** The control planes, of which one acts: the others say that they stand by, and the next one is asked. */
  controlUrls: readonly string[];
  /** What routers authenticate with. */
  token: string;
  /** Where the last known state is kept. */
  file: string;
  /** For how long the control plane may be away before that is told: 5000 ms by default. */
  patienceMs?: number;
  log?: { warn(line: object): void };
}

/** The control plane says something every 5 s: a stream that is silent for longer than this is a dead one, ms. */
const SILENCE = 15_000;
const PATIENCE = 5_000;
/** Between two tries to connect, ms; doubles from the first to the second, with jitter. */
const BACKOFF = { from: 100, to: 2_000 };
/** Thirty contexts are 10 kB. */
const LARGEST = 1_000_000;

/**
 * What the control plane says about routing, as it says it. The last state is kept on disk, and holds while the control
 * plane is away or talks nonsense. Of two states the one with the higher revision holds, whichever comes first.
 */
export class RoutingFollower {
  readonly #options: RoutingFollowerOptions;
  readonly #log: { warn(line: object): void };
  readonly #listeners = new Set<(routing: Routing) => void>();
  readonly #stop = new AbortController();
  #current: Routing | undefined;
  #following: Promise<void> | undefined;
  #heard: (() => void) | undefined;
  readonly #firstWord = new Promise<void>((resolve) => (this.#heard = resolve));
  #saving: Promise<void> | undefined;

  constructor(options: RoutingFollowerOptions) {
    this.#options = options;
    this.#log = options.log ?? rootLogger().child({ context: 'routing' });
  }

  /** The state that holds; undefined while nobody has ever told one. */
  current(): Routing | undefined {
    return this.#current;
  }

  /** Calls `listener` with each new state. Returns how to take it back. */
  onChange(listener: (routing: Routing) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Takes the state from disk and follows the control plane from here on. Resolves when it has spoken, or after
   * `withinMs`: whoever starts while it is away starts from disk. Never rejects.
   */
  async start(withinMs = 0): Promise<void> {
    await this.#load();
    this.#following ??= this.#follow();
    if (withinMs > 0)
      await Promise.race([this.#firstWord, pause(withinMs, undefined, { signal: this.#stop.signal })]).catch(() => {});
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#following;
    await this.#saving;
  }

  async #load(): Promise<void> {
    let text: string;
    try {
      text = await readFile(this.#options.file, 'utf8');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT') this.#log.warn({ msg: 'the routing state on disk cannot be read', err: error });
      return;
    }
    const routing = this.#understood(text, 'on disk');
    if (routing) this.#take(routing);
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stop;
    const { controlUrls } = this.#options;
    let waitMs = BACKOFF.from;
    let told = false;
    let heardAt = performance.now();
    for (let turn = 0; !signal.aborted; turn++) {
      try {
        await this.#listen(controlUrls[turn % controlUrls.length]!, () => {
          waitMs = BACKOFF.from;
          told = false;
          heardAt = performance.now();
        });
      } catch (error) {
        // Said once, and not while it only starts: it may be away for long, and the last state holds.
        if (!told && !signal.aborted && performance.now() - heardAt > (this.#options.patienceMs ?? PATIENCE)) {
          this.#log.warn({ msg: 'the control plane is away: the last routing state holds', err: error });
          told = true;
        }
      }
      // All of them are asked before anybody waits.
      if (turn % controlUrls.length < controlUrls.length - 1) continue;
      await pause(waitMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {});
      waitMs = Math.min(BACKOFF.to, waitMs * 2);
    }
  }

  /** Reads one stream to its end; throws when it cannot be had, or falls silent. */
  async #listen(controlUrl: string, connected: () => void): Promise<void> {
    const { token } = this.#options;
    const silent = new AbortController();
    const timer = setTimeout(() => silent.abort(new Error(`nothing was said for ${SILENCE} ms`)), SILENCE);
    try {
      const answer = await fetch(`${controlUrl}/control/routing`, {
        headers: { authorization: `Bearer ${token}`, accept: 'text/event-stream' },
        redirect: 'error',
        signal: AbortSignal.any([this.#stop.signal, silent.signal]),
      });
      if (!answer.ok || !answer.body) {
        await answer.body?.cancel();
        throw new Error(`GET ${controlUrl}/control/routing was answered with ${answer.status}`);
      }
      const events = answer.body
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(new EventSourceParserStream({ maxBufferSize: LARGEST, onComment: () => void timer.refresh() }));
      for await (const { event, data } of events) {
        timer.refresh();
        if (event !== 'routing') continue;
        const routing = this.#understood(data, 'from the control plane');
        if (!routing) continue;
        connected();
        if (this.#take(routing)) this.#save();
        this.#heard?.();
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #understood(text: string, where: string): Routing | undefined {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      this.#log.warn({ msg: `the routing state ${where} is not JSON: the last one holds` });
      return undefined;
    }
    const { data, error } = Routing.safeParse(value);
    if (error)
      this.#log.warn({
        msg: `the routing state ${where} makes no sense: the last one holds`,
        faults: error.issues.slice(0, 5).map(({ path, message }) => `${path.join('.')}: ${message}`),
      });
    return data;
  }

  #take(routing: Routing): boolean {
    if (this.#current && routing.revision <= this.#current.revision) return false;
    this.#current = routing;
    for (const listener of this.#listeners) {
      try {
        listener(routing);
      } catch (error) {
        this.#log.warn({ msg: 'a change of routing was not taken in', err: error });
      }
    }
    return true;
  }

  /** Writes what holds now, and once more when it has changed meanwhile. */
  #save(): void {
    if (this.#saving) return;
    const routing = this.#current;
    this.#saving = this.#write(JSON.stringify(routing))
      .catch((error: unknown) => this.#log.warn({ msg: 'the routing state is not kept on disk', err: error }))
      .finally(() => {
        this.#saving = undefined;
        if (this.#current !== routing) this.#save();
      });
  }

  async #write(text: string): Promise<void> {
    const { file } = this.#options;
    const draft = `${file}.${randomBytes(6).toString('hex')}`;
    await mkdir(dirname(file), { recursive: true });
    try {
      await writeFile(draft, text, { flush: true });
      await rename(draft, file);
    } catch (error) {
      await rm(draft, { force: true });
      throw error;
    }
  }
}
