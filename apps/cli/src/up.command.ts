import { readConfig } from '@banyan/platform/config';
import { defineCommand } from 'citty';
import { banner } from './banner.js';
import { startedByNpm } from './child-environment.js';
import { enginesOf } from './engines.js';
import { CommandError, exitCodes } from './exit.js';
import { Screen } from './screen.js';
import { Supervisor } from './supervisor.js';
import { watchNpm } from './watch-npm.js';

export const up = defineCommand({
  meta: { name: 'up', description: 'Start everything and keep it running until Ctrl-C' },
  args: {
    json: { type: 'boolean', description: 'One JSON object a line', default: false },
    monoliths: { type: 'string', description: 'How many of them; BANYAN_MONOLITHS, or 1' },
    proxies: { type: 'string', description: 'BANYAN_PROXIES, or 1' },
    'control-planes': { type: 'string', description: 'One acts, the others stand by; BANYAN_CONTROL_PLANES, or 1' },
    services: { type: 'string', description: 'Of each context that has left; BANYAN_SERVICES, or 1' },
  },
  async run({ args }) {
    const screen = new Screen(args.json);
    const config = readConfig({
      ...(args.monoliths && { BANYAN_MONOLITHS: args.monoliths }),
      ...(args.proxies && { BANYAN_PROXIES: args.proxies }),
      ...(args['control-planes'] && { BANYAN_CONTROL_PLANES: args['control-planes'] }),
      ...(args.services && { BANYAN_SERVICES: args.services }),
    });
    const supervisor = new Supervisor(config, screen);
    stopOnSignals(supervisor, screen);
    try {
      await supervisor.start();
    } catch (error) {
      const known =
        error instanceof CommandError ? error : new CommandError('FAILED', String((error as Error).message), '');
      if (!stopped) screen.failed(known);
      process.exit(stopped ? 0 : exitCodes[known.code]);
    }
    // From the start of the process, so with Node's own and everything that was imported.
    const ms = Math.round(performance.now());
    const { urls } = supervisor;
    const { stateDir, seed: seeded } = config;
    const tokenIsKept = config.extraction.operatorToken === undefined;
    const engines = enginesOf(config);
    const ready = { ms, urls, seeded, engines };
    screen.tell({ event: 'ready', ...ready }, banner({ ...ready, stateDir, tokenIsKept }));
  },
});

let stopped = false;

function stopOnSignals(supervisor: Supervisor, screen: Screen): void {
  const stop = (reason: string) => {
    if (stopped) return supervisor.kill();
    stopped = true;
    const hint = reason === 'SIGINT' ? '; a second Ctrl-C does not wait' : '';
    screen.tell({ event: 'notice', message: `Stopping (${reason})${hint}.` });
    void supervisor.stop().then(
      () => {
        screen.done({ stopped: true }, 'Stopped.');
        process.exit(0);
      },
      (error: Error) => {
        screen.failed(new CommandError('FAILED', `Not all could be stopped: ${error.message}`, ''));
        process.exit(exitCodes.FAILED);
      },
    );
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop(signal));
  // A terminal or pipe that is gone is no reason to fall over; the logs are in files.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  if (startedByNpm()) {
    const npmIsAlive = watchNpm();
    setInterval(() => !npmIsAlive() && !stopped && stop('npm is gone'), 1_000).unref();
  }
}
