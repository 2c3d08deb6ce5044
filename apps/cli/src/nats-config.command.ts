import { chmodSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { calledByAll, contracts } from '@banyan/contracts';
import { natsConfig, natsPassword, natsUsers } from '@banyan/messaging/nats-config';
import { readConfig } from '@banyan/platform/config';
import { command } from './command.js';
import { CommandError } from './exit.js';
import { natsSecret } from './nats-users.js';

/** A NATS server's configuration: one user for each kind of process, with the rights that the contracts give it. */
export const natsConfigCommand = command({
  name: 'nats-config',
  description: 'The configuration of a NATS server on which every process may do its own work only',
  args: {
    out: { type: 'string', description: 'Write it to this file (mode 0600) instead of the terminal' },
    listen: { type: 'string', description: 'Where the server listens', default: '127.0.0.1:4222' },
    store: { type: 'string', description: 'Where it keeps streams; .banyan/nats by default' },
    'tls-cert': { type: 'string', description: "The server's certificate, a file" },
    'tls-key': { type: 'string', description: 'Its key, a file' },
    'tls-ca': { type: 'string', description: 'Clients must show a certificate that this authority has signed' },
  },
  async run(args, screen) {
    const [cert, key, ca] = [args['tls-cert'], args['tls-key'], args['tls-ca']];
    if ((cert === undefined) !== (key === undefined) || (ca !== undefined && cert === undefined))
      throw new CommandError('BAD_USAGE', 'TLS takes a certificate and its key:', '--tls-cert FILE --tls-key FILE.');
    const config = readConfig();
    const secret = natsSecret(config);
    const users = natsUsers(contracts, calledByAll);
    const text = natsConfig({
      users,
      secret,
      server: { listen: args.listen, store: args.store ?? join(config.stateDir, 'nats') },
      tls: cert && key ? { cert, key, ca } : undefined,
    });
    const file = args.out === undefined ? undefined : resolve(args.out);
    if (file) write(file, text);
    const told = users.map((user) => ({ ...user, password: natsPassword(secret, user.user) }));
    screen.done(
      { file, users: told, ...(file ? {} : { config: text }) },
      file ? started(file, args.listen) : text.trimEnd(),
    );
  },
});

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text, { mode: 0o600 });
    chmodSync(file, 0o600); // it may have been there
  } catch (error) {
    throw new CommandError('FAILED', `${file} cannot be written: ${(error as Error).message}.`, '');
  }
}

const started = (file: string, listen: string): string =>
  [
    `${file} is written. It holds the users' passwords; what they derive from stays in the state folder or NATS_SECRET.`,
    `  nats-server -c ${file}`,
    `  NATS_URL=nats://${listen.replace('0.0.0.0', '127.0.0.1')} npm start`,
  ].join('\n');
