import { readConfig } from '@banyan/platform/config';
import { defineCommand } from 'citty';
import { connect } from 'node:net';
import { CommandError, exitCodes } from './exit.js';
import { isAlive } from './is-alive.js';
import { type RunningProcess, readRuntime } from './runtime-file.js';
import { Screen } from './screen.js';

type State = 'ready' | 'not ready' | 'gone';

export const status = defineCommand({
  meta: { name: 'status', description: 'What runs, and whether it answers' },
  args: { json: { type: 'boolean', description: 'One JSON object', default: false } },
  async run({ args }) {
    const screen = new Screen(args.json);
    const { stateDir } = readConfig();
    const runtime = await readRuntime(stateDir);
    const processes = await Promise.all(
      (runtime?.processes ?? []).map(async (process) => ({ ...process, state: await stateOf(process) })),
    );
    if (!runtime || processes.every(({ state }) => state === 'gone')) {
      screen.failed(new CommandError('NOT_RUNNING', `Nothing runs on ${stateDir}:`, 'start it with npm start.'));
      process.exit(exitCodes.NOT_RUNNING);
    }
    const rows = processes.map(({ role, context, pid, ports, state }) => [
      context ? `${role} ${context}` : role,
      state,
      String(pid),
      ports.join(', '),
    ]);
    const broken = processes.filter(({ state }) => state !== 'ready').map(({ role, state }) => `${role} is ${state}`);
    if (!args.json) process.stdout.write(`${table([['process', 'state', 'pid', 'ports'], ...rows])}\n`);
    if (broken.length === 0) return screen.done({ processes, urls: runtime.urls }, `\n${runtime.urls.proxy}`);
    screen.failed(new CommandError('FAILED', `${broken.join(', ')}:`, `the logs are in ${stateDir}/logs.`));
    process.exit(exitCodes.FAILED);
  },
});

/** An HTTP process with a port for probes is asked there; of any other, that it takes a connection says it all. */
async function stateOf({ pid, ports }: RunningProcess): Promise<State> {
  if (!isAlive(pid)) return 'gone';
  const [port, internal] = ports;
  const answers =
    internal === undefined
      ? await takesConnections(port ?? 0)
      : await fetch(`http://127.0.0.1:${internal}/readyz`, { signal: AbortSignal.timeout(2_000) }).then(
          ({ ok }) => ok,
          () => false,
        );
  return answers ? 'ready' : 'not ready';
}

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

function table(rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
