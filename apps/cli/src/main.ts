import { defineCommand, runCommand, runMain } from 'citty';
import { stripVTControlCharacters } from 'node:util';
import { CommandError, exitCodes } from './exit.js';
import { Screen } from './screen.js';

const banyan = defineCommand({
  meta: { name: 'banyan', description: 'One shop, one app, and a way out for each of its contexts' },
  subCommands: {
    // Loaded when asked for: `status` needs nothing of what `up` imports.
    up: () => import('./up.command.js').then(({ up }) => up),
    status: () => import('./status.command.js').then(({ status }) => status),
    extract: () => import('./extract.command.js').then(({ extract }) => extract),
    rollback: () => import('./rollback.command.js').then(({ rollback }) => rollback),
    freeze: () => import('./freeze.command.js').then(({ freeze }) => freeze),
    diff: () => import('./diff.command.js').then(({ diff }) => diff),
    evidence: () => import('./evidence.command.js').then(({ evidence }) => evidence),
    events: () => import('./events.command.js').then(({ events }) => events),
    replicate: () => import('./replicate.command.js').then(({ replicate }) => replicate),
    'nats-config': () => import('./nats-config.command.js').then(({ natsConfigCommand }) => natsConfigCommand),
    proxy: () => import('./proxy.command.js').then(({ proxy }) => proxy),
  },
});

const rawArgs = process.argv.slice(2);
// A reader that has seen enough (`banyan status | head -1`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => error.code === 'EPIPE' && process.exit(0));

if (rawArgs.length === 0 || rawArgs.some((word) => word === '--help' || word === '-h'))
  await runMain(banyan, { rawArgs: rawArgs.length === 0 ? ['--help'] : rawArgs });
else {
  try {
    await runCommand(banyan, { rawArgs });
  } catch (error) {
    const told = asCommandError(error);
    new Screen(rawArgs.includes('--json')).failed(told);
    process.exitCode = exitCodes[told.code];
  }
}

function asCommandError(error: unknown): CommandError {
  if (error instanceof CommandError) return error;
  const { name, message } = error as Error;
  // What citty thinks of the arguments.
  if (name === 'CLIError')
    return new CommandError('BAD_USAGE', `${stripVTControlCharacters(message)}:`, 'banyan --help lists what there is.');
  return new CommandError('FAILED', message, '');
}
