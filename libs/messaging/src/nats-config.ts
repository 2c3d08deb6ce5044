import { type NatsUser, natsPassword } from './nats-permissions.js';

export { type NatsUser, natsPassword, natsUsers } from './nats-permissions.js';
export { natsUser } from './subjects.js';

export interface NatsConfigOptions {
  users: readonly NatsUser[];
  /** What the users' passwords derive from. */
  secret: string;
  /** `127.0.0.1:4222`, and the folder in which streams are kept; without it the text is for a file that says both. */
  server?: { listen: string; store: string };
  /** Files as the server sees them. With `ca`, clients have to show a certificate that it has signed. */
  tls?: { cert: string; key: string; ca?: string };
}

/** Calls may carry a request's whole body (1 MB) with what JSON makes of it; the server advises against more than 8 MB. */
const MAX_PAYLOAD = '8MB';
/** A call is answered within 30 s; until then whoever is at it says so once a second. */
const ANSWERS = '{ max: 60, expires: "1m" }';

/**
 * Somebody who says nothing for two of these is gone. The server's own are two minutes: for so long a process that hangs,
 * or whose machine does, would get its share of the calls.
 */
const PING = '5s';

/** The configuration of a NATS server on which every kind of process may do its own work and nothing else. */
export function natsConfig({ users, secret, server, tls }: NatsConfigOptions): string {
  return [
    '# Written by `banyan nats-config` from the contracts; write it anew when a contract has changed.',
    '# It holds passwords.',
    '',
    ...(server ? [`listen: ${quoted(server.listen)}`, `jetstream { store_dir: ${quoted(server.store)} }`] : []),
    `max_payload: ${MAX_PAYLOAD}`,
    `ping_interval: ${quoted(PING)}`,
    'ping_max: 2',
    ...(tls ? tlsBlock(tls) : []),
    '',
    'authorization {',
    '  users: [',
    ...users.flatMap((user) => userBlock(user, natsPassword(secret, user.user))),
    '  ]',
    '}',
    '',
  ].join('\n');
}

function tlsBlock({ cert, key, ca }: NonNullable<NatsConfigOptions['tls']>): string[] {
  return [
    'tls {',
    `  cert_file: ${quoted(cert)}`,
    `  key_file: ${quoted(key)}`,
    ...(ca ? [`  ca_file: ${quoted(ca)}`, '  verify: true'] : []),
    '}',
  ];
}

function userBlock({ user, publish, subscribe, answers }: NatsUser, password: string): string[] {
  return [
    '    {',
    `      user: ${quoted(user)}`,
    `      password: ${quoted(password)}`,
    '      permissions: {',
    ...subjects('publish', publish),
    ...subjects('subscribe', subscribe),
    // To wherever the asker listens.
    ...(answers ? [`        allow_responses: ${ANSWERS}`] : []),
    '      }',
    '    }',
  ];
}

const subjects = (what: string, names: readonly string[]): string[] => [
  `        ${what}: [`,
  ...names.map((name) => `          ${quoted(name)}`),
  '        ]',
];

/** In double quotes a backslash begins an escape. */
const quoted = (text: string): string => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
