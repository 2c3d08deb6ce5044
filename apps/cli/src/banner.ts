import { relative } from 'node:path';
import { styleText } from 'node:util';

/** What `banyan up` says when it is ready. */
export function banner(of: { url: string; stateDir: string; ms: number; seeded: boolean }): string {
  const url = of.url.replace('127.0.0.1', 'localhost');
  const state = relative(process.cwd(), of.stateDir) || of.stateDir;
  const login = `'{"email":"customer@example.com","password":"banyan-demo"}'`;
  const token = `node -pe 'JSON.parse(require("fs").readFileSync(0)).accessToken'`;
  const accounts = [
    '',
    '  Accounts, all with the password banyan-demo',
    '    customer@example.com   staff@example.com   admin@example.com',
  ];
  return [
    '',
    `  ${styleText('bold', 'Banyan is running')} ${styleText('dim', `(started in ${(of.ms / 1000).toFixed(1)} s)`)}`,
    '',
    `  Shop    ${styleText('cyan', `${url}/v1/products`)}`,
    `  Docs    ${styleText('cyan', `${url}/docs`)}`,
    `  Logs    ${state}/logs`,
    ...(of.seeded ? accounts : []),
    '',
    '  Try',
    `    curl -s '${url}/v1/products?limit=3'`,
    ...(of.seeded
      ? [
          `    TOKEN=$(curl -s ${url}/v1/auth/login -H 'content-type: application/json' -d ${login} | ${token})`,
          `    curl -s ${url}/v1/cart -H "authorization: Bearer $TOKEN"`,
        ]
      : []),
    '',
    '  Ctrl-C stops everything; the data stays.',
    '',
  ].join('\n');
}
