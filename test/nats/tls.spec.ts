import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { calledByAll, contracts } from '@banyan/contracts';
import { Nats } from '@banyan/messaging/nats';
import { natsConfig, natsPassword, natsUsers } from '@banyan/messaging/nats-config';
import { loadConfig } from '@banyan/platform/config';
import { type ServerProcess, eventually, startNats } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, unhurried } from './raw-client.spec-support.js';

const run = promisify(execFile);
const secret = 'the secret that all passwords of this test derive from';
const users = natsUsers(contracts, calledByAll);

let folder: string;
const file = (name: string) => join(folder, name);

/** An authority of our own: `<name>.pem` and `<name>.key`. */
const authority = (name: string) =>
  run('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
    ...['-subj', `/CN=${name}`, '-keyout', file(`${name}.key`), '-out', file(`${name}.pem`)],
  ]);

/** A certificate for this machine that the authority has signed. */
async function certificate(name: string, signedBy: string): Promise<void> {
  await run('openssl', [
    ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', `/CN=${name}`],
    ...['-keyout', file(`${name}.key`), '-out', file(`${name}.csr`)],
  ]);
  await writeFile(
    file(`${name}.ext`),
    'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n',
  );
  await run('openssl', [
    ...['x509', '-req', '-days', '2', '-in', file(`${name}.csr`), '-extfile', file(`${name}.ext`)],
    ...[
      '-CA',
      file(`${signedBy}.pem`),
      '-CAkey',
      file(`${signedBy}.key`),
      '-CAcreateserial',
      '-out',
      file(`${name}.pem`),
    ],
  ]);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan-tls-'));
  await Promise.all([authority('ours'), authority('another')]);
  await certificate('server', 'ours');
  await certificate('client', 'ours');
  await certificate('stranger', 'another');
});
afterAll(() => rm(folder, { recursive: true }));

/** As a process signs on whose settings these are. */
async function connect(server: ServerProcess, settings: Record<string, string>, patienceMs = 40_000): Promise<string> {
  const user = 'orders-service';
  const env = { NATS_URL: server.url, NATS_USER: user, NATS_PASSWORD: natsPassword(secret, user), ...settings };
  const nats = await Nats.connect(loadConfig(env).nats!, { name: user, patienceMs });
  const version = nats.serverVersion;
  await nats.close();
  return version;
}

/** Why such a process does not sign on. A try that took too long tells nothing of it: then there is another one. */
const refusal = (server: ServerProcess, settings: Record<string, string>): Promise<string> =>
  eventually(async () => {
    const said = await connect(server, settings, 500).then(
      () => 'let in',
      (error: Error) => error.message,
    );
    return !said.includes('(timeout)') && said;
  });

describe('A NATS server with a certificate', () => {
  let server: ServerProcess;
  beforeAll(async () => {
    const tls = { cert: file('server.pem'), key: file('server.key') };
    server = await startNats({ config: unhurried(natsConfig({ users, secret, tls })) });
  });
  afterAll(() => server?.stop());

  it('lets a process in that knows its authority', async () => {
    expect(await connect(server, { NATS_TLS_CA: file('ours.pem') })).toMatch(/^2\./);
    const tls = server.url.replace('nats:', 'tls:');
    expect(await connect(server, { NATS_URL: tls, NATS_TLS_CA: file('ours.pem') })).toMatch(/^2\./);
  });

  it('is not believed by one that knows another authority, or none', async () => {
    const refused = /NATS cannot be reached at 127\.0\.0\.1:\d+ \(.*certificate.*\)/i;
    expect(await refusal(server, { NATS_TLS_CA: file('another.pem') })).toMatch(refused);
    expect(await refusal(server, {})).toMatch(refused);
  });

  it('speaks to nobody in the clear', async () => {
    await expect(RawClient.connect(server.url, 'monolith', natsPassword(secret, 'monolith'))).rejects.toThrow();
  });
});

describe('A NATS server that asks for certificates', () => {
  let server: ServerProcess;
  beforeAll(async () => {
    const tls = { cert: file('server.pem'), key: file('server.key'), ca: file('ours.pem') };
    server = await startNats({ config: unhurried(natsConfig({ users, secret, tls })) });
  });
  afterAll(() => server?.stop());

  const own = (name: string) => ({
    NATS_TLS_CA: file('ours.pem'),
    NATS_TLS_CERT: file(`${name}.pem`),
    NATS_TLS_KEY: file(`${name}.key`),
  });

  it('lets those in that show one of its authority, and no others', async () => {
    expect(await connect(server, own('client'))).toMatch(/^2\./);
    await expect(connect(server, own('stranger'), 500)).rejects.toThrow(/NATS cannot be reached/);
    await expect(connect(server, { NATS_TLS_CA: file('ours.pem') }, 500)).rejects.toThrow(/NATS cannot be reached/);
  });

  it('still asks for the password', async () => {
    await expect(connect(server, { ...own('client'), NATS_PASSWORD: 'wrong' })).rejects.toThrow(
      /refuses the user orders-service/,
    );
  });
});
