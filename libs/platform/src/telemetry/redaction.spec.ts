import { Logger } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { configureLogs, rootLogger } from './log.js';
import { loggerModule, NestLogger } from './nest.js';
import { redactText } from './redaction.js';

const JWT = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhYmMifQ.c2lnbmF0dXJlLXZhbHVl';

const lines: string[] = [];
const output = (): string => lines.join('');
const last = (): Record<string, unknown> => JSON.parse(lines.at(-1)!);

beforeEach(() => {
  lines.length = 0;
  configureLogs({
    service: 'spec',
    level: 'trace',
    format: 'json',
    destination: { write: (line) => lines.push(line) },
  });
});
afterAll(() => configureLogs({ service: 'spec', level: 'info' }));

describe('a secret never reaches the log', () => {
  const secrets: [what: string, secret: string, log: (secret: string) => void][] = [
    ['a password by key', 'hunter2-xyz', (password) => rootLogger().info({ password })],
    ['a new password, nested', 'hunter2-xyz', (newPassword) => rootLogger().info({ a: [{ b: { newPassword } }] })],
    ['a password hash', '$argon2id$v=19$m=19456', (hash) => rootLogger().info({ password_hash: hash })],
    ['an access token', JWT, (accessToken) => rootLogger().info({ accessToken })],
    ['a refresh token, opaque', 'rt-51f0-aa77', (refreshToken) => rootLogger().info({ body: { refreshToken } })],
    [
      'an authorization header',
      'dXNlcjpwYXNz',
      (basic) => rootLogger().info({ headers: { Authorization: `Basic ${basic}` } }),
    ],
    ['a cookie', 'sid-81723', (sid) => rootLogger().info({ headers: { cookie: `a=b; sid=${sid}` } })],
    ['a set-cookie list', 'sid-81723', (sid) => rootLogger().info({ headers: { 'set-cookie': [`sid=${sid}`] } })],
    ['an idempotency key header', 'idem-4711', (key) => rootLogger().info({ headers: { 'idempotency-key': key } })],
    ['an idempotency key', 'idem-4711', (idempotencyKey) => rootLogger().info({ envelope: { idempotencyKey } })],
    ['a card as an object', '4242424242424242', (number) => rootLogger().info({ card: { number } })],
    ['a card number by value', '4242 4242 4242 4242', (number) => rootLogger().info(`paid with ${number}, thanks`)],
    ['a payment method', 'tok_3ds', (paymentMethod) => rootLogger().info({ order: { paymentMethod } })],
    ['a provider token by value', 'tok_declined', (token) => rootLogger().warn(`provider refused ${token}`)],
    ['an e-mail address by key', 'ada@example.com', (email) => rootLogger().info({ user: { email } })],
    ['an e-mail address under any key', 'ada@example.com', (subject) => rootLogger().info({ subject })],
    ['an e-mail address as a key', 'ada@example.com', (address) => rootLogger().info({ tries: { [address]: 3 } })],
    ['an e-mail address in a text', 'ada.l+shop@example.co.uk', (mail) => rootLogger().info(`sent to <${mail}>.`)],
    ['an e-mail address in a URL', 'ada%40example.com', (mail) => rootLogger().info(`GET /users?who=${mail}`)],
    ['an e-mail address with letters of its own', 'jürgen@exämple.de', (mail) => rootLogger().info(mail)],
    ['a JWT in a text', JWT, (token) => rootLogger().info(`jwt ${token} is expired`)],
    ['a bearer string in a text', 'abc.def-ghi', (token) => rootLogger().info(`got Bearer ${token} from client`)],
    ['a cookie line in a text', 'sid-81723', (sid) => rootLogger().info(`Cookie: theme=dark; sid=${sid}`)],
    ['a password in a text', 'hunter2-xyz', (password) => rootLogger().info(`login with password=${password} failed`)],
    ['JSON inside a text', 'hunter2-xyz', (password) => rootLogger().info(`body was ${JSON.stringify({ password })}`)],
    [
      'a database URL',
      'pg-s3cret',
      (pw) => rootLogger().info(`connecting to postgres://banyan:${pw}@localhost/banyan`),
    ],
    [
      'a private key',
      'MHcCAQEEIBkg',
      (key) => rootLogger().info(`-----BEGIN EC PRIVATE KEY-----\n${key}\n-----END EC PRIVATE KEY-----`),
    ],
    ['a printf argument', 'ada@example.com', (mail) => rootLogger().info('sent to %s', mail)],
    ['a child binding', 'ada@example.com', (user) => rootLogger().child({ user }).info('hello')],
    ['an error message', 'ada@example.com', (mail) => rootLogger().error(new Error(`no such user ${mail}`))],
    ['a cause', 'ada@example.com', (mail) => rootLogger().error({ err: new Error('x', { cause: new Error(mail) }) })],
    [
      "Postgres' error detail",
      'idem-4711',
      (key) =>
        rootLogger().error(
          Object.assign(new Error('duplicate key'), {
            detail: `Key (actor, operation, key)=(a(1), reserve, ${key}) already exists.`,
          }),
        ),
    ],
    [
      "Postgres' failing row",
      'Ada Lovelace',
      (name) => rootLogger().error({ detail: `Failing row contains (7, ${name}, x).` }),
    ],
  ];

  it.each(secrets)('%s', (_what, secret, log) => {
    log(secret);
    expect(lines).toHaveLength(1);
    expect(output()).not.toContain(secret);
    expect(output()).toContain('[redacted]');
  });

  it('but what is needed to find a fault stays', () => {
    const fields = {
      orderId: '01920c5e-7f3a-7c11-8f1e-1234567890ab',
      route: '/v1/auth/refresh',
      company: 'ACME',
      tokenType: 'Bearer',
      idempotencyKey: null,
      lsn: 123456789012345,
      at: '2026-01-02T03:04:05.678Z',
      url: 'http://localhost:3000/v1/stock',
      discarded: 3,
    };
    rootLogger().info({ ...fields, msg: 'the token is fine; nothing was discarded' });
    expect(last()).toMatchObject({ ...fields, msg: 'the token is fine; nothing was discarded' });
  });

  it('and a long text is scanned in linear time', () => {
    const texts = [
      'a@'.repeat(50_000),
      'a'.repeat(100_000) + '@',
      '1 '.repeat(50_000),
      'Key (' + 'a)=('.repeat(20_000),
      'token '.repeat(20_000),
      'cookie'.repeat(20_000),
    ];
    // The shortest of several: whatever else the machine does comes on top.
    const took = Array.from({ length: 5 }, () => {
      const start = performance.now();
      for (const text of texts) redactText(text);
      return performance.now() - start;
    });
    expect(Math.min(...took)).toBeLessThan(1_000);
  });
});

describe("Nest's logger", () => {
  it('takes objects, texts with objects and errors as one line each', async () => {
    const app = await NestFactory.createApplicationContext(loggerModule(), { bufferLogs: true });
    app.useLogger(app.get(NestLogger));
    expect(output()).toContain('"context":"NestFactory"');
    lines.length = 0;
    const log = new Logger('Relay');

    log.log({ msg: 'parked', eventId: 'e1' });
    expect(last()).toMatchObject({ level: 'info', service: 'spec', context: 'Relay', msg: 'parked', eventId: 'e1' });
    log.warn('slow', { ms: 17 });
    expect(last()).toMatchObject({ level: 'warn', context: 'Relay', msg: 'slow', ms: 17 });
    log.error('failed', new Error('boom'));
    expect(last()).toMatchObject({ level: 'error', context: 'Relay', msg: 'failed', err: { message: 'boom' } });
    log.error({ msg: 'failed', err: new Error('boom') });
    expect(last()).toMatchObject({ level: 'error', context: 'Relay', err: { message: 'boom' } });
    log.error('boom', new Error('boom').stack);
    expect(last()).toMatchObject({ level: 'error', context: 'Relay', err: { message: 'boom' } });
    log.debug('plain');
    expect(last()).toMatchObject({ level: 'debug', context: 'Relay', msg: 'plain' });
    expect(lines).toHaveLength(6);
    await app.close();
  });
});
