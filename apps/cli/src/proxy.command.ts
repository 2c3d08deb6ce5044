import { fork } from 'node:child_process';
import { join, resolve } from 'node:path';
import { command } from './command.js';
import { CommandError } from './exit.js';

const program = join(import.meta.dirname, '../../../proxy/dist/alone.js');

type Word = { ready: { port: number; adminPort: number } } | { failed: string; message: string };

/** Runs until Ctrl-C. A process of its own: what the proxy needs is not what a command needs. */
export const proxy = command({
  name: 'proxy',
  description: 'The proxy alone, in front of any HTTP monolith',
  args: {
    config: { type: 'string', description: 'Routes and stages (YAML); read again when it changes', required: true },
  },
  async run({ config }, screen) {
    const child = fork(program, [resolve(config)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    // Ctrl-C reaches the whole group; SIGTERM only us.
    const stop = (): void => void child.kill('SIGTERM');
    process.on('SIGINT', () => {}).on('SIGTERM', stop);
    let failure: { failed: string; message: string } | undefined;
    child.on('message', (word: Word) => {
      if ('failed' in word) failure = word;
      else {
        const { port, adminPort } = word.ready;
        const message = `The proxy listens on port ${port}, its metrics on ${adminPort}. Ctrl-C ends it.`;
        screen.tell({ event: 'notice', message });
      }
    });
    const code = await new Promise<number | null>((done) => child.once('exit', done));
    if (failure) throw told(failure);
    if (code !== 0)
      throw new CommandError('FAILED', `The proxy ended with ${code ?? 'a signal'}:`, 'its log says why.');
    screen.done({ file: resolve(config) });
  },
});

function told({ failed, message }: { failed: string; message: string }): CommandError {
  if (failed === 'BAD_FILE')
    return new CommandError('BAD_USAGE', `${message.replaceAll('\n', '; ')}:`, 'mend the file and start again.');
  if (failed === 'PORT_IN_USE')
    return new CommandError('PORT_IN_USE', `${message}:`, 'choose another port under `listen` or `admin`.');
  return new CommandError('FAILED', `${message}:`, 'its log says more.');
}
