import { relative } from 'node:path';
import { styleText } from 'node:util';
import type { Engines } from './engines.js';

/** What `banyan up` says when it is ready. */
export function banner(of: {
  urls: { proxy: string; control: string };
  stateDir: string;
  /** Is the operator's token the one that is kept in the state folder? */
  tokenIsKept: boolean;
  ms: number;
  seeded: boolean;
  engines: Engines;
}): string {
  const [url, control] = [of.urls.proxy, of.urls.control].map((each) => each.replace('127.0.0.1', 'localhost'));
  const state = relative(process.cwd(), of.stateDir) || of.stateDir;
  const token = of.tokenIsKept ? `${state}/operator-token` : 'BANYAN_OPERATOR_TOKEN';
  const login = `'{"email":"customer@example.com","password":"banyan-demo"}'`;
  const pick = `node -pe 'JSON.parse(require("fs").readFileSync(0)).accessToken'`;
  const accounts = [
    '',
    '  Accounts, all with the password banyan-demo',
    '    customer@example.com   staff@example.com   admin@example.com',
  ];
  return [
    '',
    `  ${styleText('bold', 'Banyan is running')} ${styleText('dim', `(started in ${(of.ms / 1000).toFixed(1)} s)`)}`,
    '',
    `  Shop     ${styleText('cyan', `${url}/v1/products`)}`,
    `  Docs     ${styleText('cyan', `${url}/docs`)}`,
    `  Control  ${styleText('cyan', `${control}/control/contexts`)}  (operator token: ${token})`,
    `  Logs     ${state}/logs`,
    '',
    '  It runs on',
    ...Object.entries(of.engines).map(([what, engine]) => `    ${`${what}:`.padEnd(9)} ${engine}`),
    ...(of.seeded ? accounts : []),
    '',
    '  Try',
    `    curl -s '${url}/v1/products?limit=3'`,
    ...(of.seeded
      ? [
          `    TOKEN=$(curl -s ${url}/v1/auth/login -H 'content-type: application/json' -d ${login} | ${pick})`,
          `    curl -s ${url}/v1/cart -H "authorization: Bearer $TOKEN"`,
        ]
      : []),
    '    npx banyan status',
    '    npx banyan extract inventory    # takes it out of the running monolith, stage by stage',
    '    npx banyan rollback inventory   # and back',
    '',
    '  Ctrl-C stops everything; the data stays.',
    '',
  ].join('\n');
}
