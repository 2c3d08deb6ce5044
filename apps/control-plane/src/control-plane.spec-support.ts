import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ContextStatus, Routing, type Stage } from '@banyan/extraction';
import { otherSide } from '@banyan/extraction/protocol';
import type { Side } from '@banyan/kernel';
import { loadConfig } from '@banyan/platform/config';
import { shutDown } from '@banyan/platform/http';
import { type TestDatabase, contextNames, createTestDatabase, eventually } from '@banyan/testing';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { inject } from 'vitest';
import { createControlPlane } from './control-plane.js';
import { ControlPlane } from './control-plane.service.js';
import type { OwnerDatabases } from './owner-databases.js';
import { type ProcessState, Runtime, type Wanted } from './runtime.js';
import { type StreamState, Streams } from './streams.js';

export const OPERATOR = 'operator-token-of-the-spec';
export const CLIENT = 'client-token-of-the-spec';

/** Processes that are ready as soon as they are wanted, except those that the spec says something else about. */
export class ScriptedRuntime extends Runtime {
  wanted: readonly Wanted[] = [];
  readonly ill = new Map<string, string>();
  /** They take their time to end: what was wanted once is still to be seen. */
  lingers = false;
  private seen: readonly Wanted[] = [];
  private readonly listeners = new Set<() => void>();

  want(list: readonly Wanted[]): void {
    this.wanted = list;
    this.changed();
  }
  letGo(): void {}
  observe(): readonly ProcessState[] {
    if (!this.lingers || this.wanted.length > 0) this.seen = this.wanted;
    return this.seen.map(({ role, context }) => {
      const error = this.ill.get(`${role} ${context}`);
      const endpoints = { http: ['http://127.0.0.1:1'], rpc: [{ host: '127.0.0.1', port: 2 }] };
      return { role, context, ready: error === undefined, error, ...(role === 'service' && { endpoints }) };
    });
  }
  onChange(fn: () => void): () => void {
    this.listeners.add(fn);
    return () => void this.listeners.delete(fn);
  }
  changed(): void {
    for (const fn of this.listeners) fn();
  }
  async start(): Promise<void> {}
  async stop(): Promise<void> {}
}

/** Streams that copy nothing, and a bridge that opens the other side as soon as it hears of a hand-over. */
export class ScriptedStreams extends Streams {
  readonly streams = new Map<string, StreamState>();
  readonly calls: string[] = [];
  preflightProblem: string | undefined;
  /** The bridge is dead: nobody opens anything. */
  bridgeAway = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly owners: OwnerDatabases) {
    super();
    this.timer = setInterval(() => void this.bridge(), 5).unref();
  }

  async preflight(): Promise<void> {
    if (this.preflightProblem) throw new Error(this.preflightProblem);
  }
  async prepare(context: string, from: Side, backfill: { targetEpoch: number } | null): Promise<void> {
    this.calls.push(`prepare ${from}${backfill ? ' with backfill' : ''}`);
    const copy = backfill && { percent: 100, rows: 1, done: true };
    this.streams.set(`${context} ${from}`, {
      kind: 'prepared',
      connected: true,
      copy,
      lag: { bytes: 0, ms: 0 },
      problem: null,
    });
  }
  async drop(context: string, from: Side): Promise<void> {
    this.calls.push(`drop ${from}`);
    this.streams.delete(`${context} ${from}`);
  }
  async state(context: string, from: Side): Promise<StreamState> {
    const none: StreamState = { kind: 'absent', connected: false, copy: null, lag: null, problem: null };
    return this.streams.get(`${context} ${from}`) ?? none;
  }
  stop(): void {
    clearInterval(this.timer);
  }

  private async bridge(): Promise<void> {
    for (const [key, { kind }] of this.streams) {
      const [context, from] = key.split(' ') as [string, Side];
      if (this.bridgeAway || kind !== 'prepared') continue;
      try {
        const source = await this.owners.row(context, from);
        const target = await this.owners.row(context, otherSide(from));
        if (!source || !target || source.open || target.open || source.epoch <= target.epoch) continue;
        await this.owners.ask(context, otherSide(from), `select ${context}.banyan_open($1)`, [source.epoch]);
      } catch {
        // the spec is over
      }
    }
  }
}

/**
 * For a machine that is held up for seconds: a hand-over is overdue only while the bridge is away, and a database is
 * away only when it really is.
 */
function unhurried(owners: OwnerDatabases, streams: ScriptedStreams): void {
  const [row, pool] = [owners.row.bind(owners), owners.pool.bind(owners)];
  owners.row = async (context, side) => {
    const seen = await row(context, side);
    return seen && !streams.bridgeAway ? { ...seen, ageMs: 0 } : seen;
  };
  owners.pool = (context, side) => {
    const connections = pool(context, side);
    Object.assign(connections.options, { query_timeout: 60_000, connectionTimeoutMillis: 60_000 });
    return connections;
  };
}

export interface SpecControlPlane {
  readonly app: NestFastifyApplication;
  readonly url: string;
  readonly runtime: ScriptedRuntime;
  readonly streams: ScriptedStreams;
  ask(method: 'GET' | 'POST', path: string, body?: object, token?: string): Promise<{ status: number; body: any }>; // eslint-disable-line @typescript-eslint/no-explicit-any -- specs look at bodies field by field
  /** Resolves when it acts; a start waits for that for a few seconds only. */
  acts(): Promise<void>;
  status(context: string): Promise<ContextStatus>;
  reaches(context: string, stage: Stage): Promise<ContextStatus>;
  stop(): Promise<void>;
}

export interface Places {
  monolith: TestDatabase;
  service: TestDatabase;
  stateDir: string;
  drop(): Promise<void>;
}

/** A monolith's database with all contexts, and an empty one for the services. */
export async function places(): Promise<Places> {
  const monolith = await createTestDatabase(inject('adminUrl'));
  const service = await createTestDatabase(inject('adminUrl'), { contexts: [] });
  const stateDir = await mkdtemp(join(tmpdir(), 'banyan-control-'));
  return {
    monolith,
    service,
    stateDir,
    async drop() {
      await monolith.drop();
      await service.drop();
      await rm(stateDir, { recursive: true });
    },
  };
}

export async function startControlPlane(
  { monolith, service, stateDir }: Places,
  settings: Record<string, string> = {},
  /** Before it acts: what there was before it was started. */
  before: (parts: { runtime: ScriptedRuntime; streams: ScriptedStreams }) => void = () => {},
): Promise<SpecControlPlane> {
  const serviceUrls = contextNames.map((name) => [`${name.toUpperCase()}_SERVICE_DATABASE_URL`, service.adminUrl]);
  const config = loadConfig({
    DATABASE_URL: monolith.adminUrl,
    BANYAN_STATE_DIR: stateDir,
    BANYAN_OPERATOR_TOKEN: OPERATOR,
    BANYAN_CLIENT_TOKEN: CLIENT,
    BANYAN_DB_POOL_SIZE: '4',
    BANYAN_DB_CONNECT_TIMEOUT_MS: '60000',
    BANYAN_FLAGS_REFRESH_MS: '100',
    ...Object.fromEntries(serviceUrls),
    ...settings,
  });
  const runtime = new ScriptedRuntime();
  let streams: ScriptedStreams | undefined;
  const app = await createControlPlane(config, {
    logger: false,
    runtime,
    streams: (owners) => {
      streams = new ScriptedStreams(owners);
      unhurried(owners, streams);
      before({ runtime, streams });
      return streams;
    },
  });
  await app.listen(Number(settings['CONTROL_PORT'] ?? 0), '127.0.0.1');
  const url = await app.getUrl();
  const ask: SpecControlPlane['ask'] = async (method, path, body, token = OPERATOR) => {
    const answer = await fetch(`${url}${path}`, {
      method,
      headers: {
        ...(token !== '' && { authorization: `Bearer ${token}` }),
        ...(body && { 'content-type': 'application/json' }),
      },
      body: body && JSON.stringify(body),
    });
    const text = await answer.text();
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) };
  };
  const status = async (context: string) => (await ask('GET', `/control/contexts/${context}`)).body as ContextStatus;
  return {
    app,
    url,
    runtime,
    streams: streams!,
    ask,
    async acts() {
      await eventually(() => app.get(ControlPlane).leading, { timeoutMs: 30_000 });
    },
    status,
    reaches: (context, stage) =>
      eventually(
        async () => {
          const now = await status(context);
          if (now.stage !== stage) throw new Error(`at ${now.stage}: ${now.doing}; ${now.blocked}`);
          return now;
        },
        { timeoutMs: 30_000 },
      ),
    async stop() {
      streams!.stop();
      await shutDown(app, 100);
    },
  };
}

/** Follows the routing as a router does; resolves when the first state was heard. */
export async function routingStream(
  url: string,
  token: string,
  heard: (routing: Routing) => void,
): Promise<{ close(): void }> {
  const abort = new AbortController();
  const answer = await fetch(`${url}/control/routing`, {
    headers: { authorization: `Bearer ${token}` },
    signal: abort.signal,
  });
  let count = 0;
  void (async () => {
    let text = '';
    for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const events = text.split('\n\n');
      text = events.pop()!;
      for (const event of events) {
        const [, data] = /^event: routing\ndata: (.*)$/s.exec(event) ?? [];
        if (!data) continue;
        count += 1;
        heard(Routing.parse(JSON.parse(data)));
      }
    }
  })().catch(() => {});
  while (count === 0) await sleep(5);
  return { close: () => abort.abort() };
}
