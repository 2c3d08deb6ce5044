import type { ContextStatus } from '@banyan/extraction/status';
import { type Config, readConfig } from '@banyan/platform/config';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { command } from './command.js';
import { contextPage, contextsTable } from './context-text.js';
import { ControlClient } from './control-client.js';
import { CommandError } from './exit.js';
import { isAlive } from './is-alive.js';
import { type RunningProcess, readRuntime } from './runtime-file.js';
import type { Screen } from './screen.js';
import { table } from './table.js';

type State = 'ready' | 'not ready' | 'gone';

interface Picture {
  processes: (RunningProcess & { state: State })[];
  urls: Record<string, string | undefined>;
  /** null: the control plane does not answer. */
  contexts: ContextStatus[] | null;
  /** What is not as it should be. */
  problems: string[];
}

const WATCH_MS = 1_000;

export const status = command({
  name: 'status',
  description: 'What runs, and where each context is on its way; with a context all that is known of it',
  args: {
    context: { type: 'positional', description: 'inventory, orders, …', required: false },
    watch: { type: 'boolean', description: 'Draw it again every second', default: false },
  },
  async run({ context, watch }, screen) {
    const config = readConfig();
    if (watch) return redraw(config, context, screen);
    const picture = await look(config, context);
    screen.page(draw(picture, context));
    const { problems, ...seen } = picture;
    if (problems.length > 0)
      throw new CommandError('FAILED', `${problems.join(', ')}:`, `the logs are in ${config.stateDir}/logs.`);
    screen.done({ ...seen }, `\n${picture.urls.proxy ?? picture.urls.control}`);
  },
});

async function redraw(config: Config, context: string | undefined, screen: Screen): Promise<void> {
  process.once('SIGINT', () => process.exit(0));
  for (;;) {
    const picture = await look(config, context);
    if (screen.json) screen.done({ ...picture });
    else {
      const clear = process.stdout.isTTY ? '\x1b[H\x1b[2J' : '';
      process.stdout.write(`${clear}${draw(picture, context)}\n`);
    }
    await sleep(WATCH_MS);
  }
}

/** Throws NOT_RUNNING when there is nothing to look at, and what the control plane has to say of an unknown context. */
async function look(config: Config, context: string | undefined): Promise<Picture> {
  const runtime = await readRuntime(config.stateDir);
  const processes = await Promise.all(
    (runtime?.processes ?? []).map(async (process) => ({ ...process, state: await stateOf(process) })),
  );
  const elsewhere = config.extraction.controlUrls;
  if (!elsewhere && processes.every(({ state }) => state === 'gone'))
    throw new CommandError('NOT_RUNNING', `Nothing runs on ${config.stateDir}:`, 'start it with npm start.');
  const problems = processes
    .filter(({ state }) => state !== 'ready')
    .map(({ role, context, state }) => `${context ? `${role} ${context}` : role} is ${state}`);
  const contexts = await ControlClient.find(config)
    .then(async (client) => (context ? [await client.context(context)] : client.contexts()))
    .catch((error: unknown) => {
      if (!(error instanceof CommandError) || error.code !== 'UNREACHABLE') throw error;
      return null;
    });
  if (!contexts && problems.length === 0) problems.push('the control plane does not answer');
  const urls = { ...runtime?.urls, ...(elsewhere ? { control: elsewhere[0] } : {}) };
  const seen = context ? processes.filter((process) => process.context === context) : processes;
  return { processes: seen, urls, contexts, problems };
}

function draw({ processes, contexts }: Picture, context: string | undefined): string {
  const rows = processes.map(({ role, context, pid, ports, state }) => [
    context ? `${role} ${context}` : role,
    state,
    String(pid),
    ports.join(', '),
  ]);
  const parts = [];
  const [only] = contexts ?? [];
  if (context && only) parts.push(contextPage(only));
  if (rows.length > 0) parts.push(table([['process', 'state', 'pid', 'ports'], ...rows]));
  if (!context && contexts) parts.push(contextsTable(contexts, process.stdout.columns));
  if (!contexts) parts.push('The control plane does not answer: routers go on with what they knew last.');
  return parts.join('\n\n');
}

/** One with a port for probes is asked there; of any other, that it takes a connection says it all. */
async function stateOf({ pid, role, ports }: RunningProcess): Promise<State> {
  if (!isAlive(pid)) return 'gone';
  const [port, internal = role === 'bridge' ? port : undefined] = ports;
  const answers = internal === undefined ? takesConnections(port ?? 0) : probes(internal);
  return (await answers) ? 'ready' : 'not ready';
}

const probes = (port: number): Promise<boolean> =>
  fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(2_000) }).then(
    ({ ok }) => ok,
    () => false,
  );

function takesConnections(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect({ host: '127.0.0.1', port, timeout: 2_000 });
    const end = (answer: boolean) => {
      done(answer);
      socket.destroy();
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
    socket.once('timeout', () => end(false));
  });
}
