import { createHash, randomUUID } from 'node:crypto';
import { identity } from '@banyan/contracts';
import { type Actor, newId, system } from '@banyan/kernel';
import type { Client } from '@banyan/messaging';
import { type ContextApp, contextApp, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { leadMs } from './domain/signing-key.js';
import { IdentityJobs } from './identity.jobs.js';
import { SigningKeys } from './identity.signing-keys.js';
import { IdentityModule } from './index.js';

const test = testDatabase({ contexts: ['identity'] });
const secret = 'a secret for specs, thirty-two characters';

const start = (BANYAN_SECRET: string) =>
  contextApp({ test, module: IdentityModule, contracts: [identity], settings: { BANYAN_SECRET } });

let shop: ContextApp;
let client: Client<typeof identity>;

beforeAll(async () => {
  // Two processes start on an empty database at once.
  const [first, second] = await Promise.all([start(secret), start(secret)]);
  await second.close();
  shop = first;
  client = shop.client(identity);
});
afterAll(() => shop?.close());

const minutes = (count: number) => new Date(Date.now() + count * 60_000).toISOString();
const tokenHash = () => createHash('sha256').update(randomUUID()).digest('hex');
const user = async () => client.register({ email: `${randomUUID()}@example.com`, name: 'Ada', passwordHash: 'hash' });
const customer = (id: string): Actor => ({ kind: 'user', id, roles: ['customer'] });

describe('users', () => {
  it('a customer sees themselves, staff see anybody, nobody else sees them', async () => {
    const ada = await user();
    expect(await client.user({ id: ada.id }, { actor: customer(ada.id) })).toEqual(ada);
    expect(await client.user({ id: ada.id }, { actor: { kind: 'user', id: newId(), roles: ['staff'] } })).toEqual(ada);
    for (const actor of [customer(newId()), { kind: 'anonymous' } as Actor])
      await expect(client.user({ id: ada.id }, { actor })).rejects.toMatchObject({ code: 'USER_NOT_FOUND' });
  });

  it('only the system makes staff and admins', async () => {
    const boss = { email: 'boss@example.com', name: 'Boss', passwordHash: 'hash', roles: ['admin' as const] };
    for (const actor of [customer(newId()), { kind: 'user', id: newId(), roles: ['admin'] } as Actor])
      await expect(client.register(boss, { actor })).rejects.toMatchObject({ code: 'ROLES_NOT_ALLOWED' });
    expect(await client.register(boss, { actor: system('seed') })).toMatchObject({ roles: ['admin'] });
  });

  it('are announced once, with what others may know', async () => {
    const ada = await user();
    const rows = await test.admin<{ data: object }>(`SELECT data FROM identity.outbox WHERE data->>'userId' = $1`, [
      ada.id,
    ]);
    expect(rows.map(({ data }) => data)).toEqual([{ userId: ada.id, email: ada.email, name: 'Ada' }]);
  });
});

describe('sessions', () => {
  it('given a session near its end, a rotated token does not outlive it', async () => {
    const { id: userId } = await user();
    const [first, next] = [tokenHash(), tokenHash()];
    const endsAt = minutes(5);
    await client.openSession({ userId, tokenHash: first, expiresAt: minutes(2), endsAt });
    const rotated = await client.rotateSession({ tokenHash: first, nextTokenHash: next, expiresAt: minutes(30) });
    expect(rotated).toMatchObject({ status: 'rotated', user: { id: userId } });
    const [row] = await test.admin<{ expires_at: Date }>(
      'SELECT expires_at FROM identity.refresh_token WHERE token_hash = $1',
      [next],
    );
    expect(row?.expires_at.toISOString()).toBe(endsAt);
  });

  it('for nobody is not opened', async () => {
    const session = { userId: newId(), tokenHash: tokenHash(), expiresAt: minutes(1), endsAt: minutes(1) };
    await expect(client.openSession(session)).rejects.toMatchObject({ code: 'USER_NOT_FOUND' });
  });

  it('whose time is over are removed by the job, with their tokens; others stay', async () => {
    const { id: userId } = await user();
    const [old, fresh] = [tokenHash(), tokenHash()];
    await client.openSession({ userId, tokenHash: old, expiresAt: minutes(-1), endsAt: minutes(60) });
    await client.openSession({ userId, tokenHash: fresh, expiresAt: minutes(1), endsAt: minutes(60) });
    await shop.app.get(IdentityJobs).removeExpired({ now: new Date() });
    const left = await test.admin('SELECT token_hash FROM identity.refresh_token WHERE token_hash = ANY($1)', [
      [old, fresh],
    ]);
    expect(left).toEqual([{ token_hash: fresh }]);
  });
});

describe('signing keys', () => {
  const kids = async () => (await client.jwks({})).keys.map(({ kid }) => kid);

  it('of two that started at once, both use one key', async () => {
    expect(await test.admin('SELECT kid FROM identity.signing_key')).toHaveLength(1);
    expect(await kids()).toEqual([(await shop.app.get(SigningKeys).current()).kid]);
  });

  it('rest sealed', async () => {
    const { d, kid } = await shop.app.get(SigningKeys).current();
    const [row] = await test.admin('SELECT * FROM identity.signing_key WHERE kid = $1', [kid]);
    expect(d).toEqual(expect.any(String));
    expect(JSON.stringify(row)).not.toContain(d);
    expect(row?.sealed_private_jwk).toMatch(/^v1\./);
  });

  it('are replaced when old enough: by one new key, published before it signs', async () => {
    const keys = shop.app.get(SigningKeys);
    const before = await kids();
    await keys.rotateIfDue(new Date());
    expect(await kids()).toEqual(before);

    await test.admin(`UPDATE identity.signing_key SET created_at = now() - interval '31 days'`);
    await Promise.all([1, 2, 3].map(() => keys.rotateIfDue(new Date())));
    const after = await kids();
    expect(after).toHaveLength(2);
    expect(after).toEqual(expect.arrayContaining(before));
    expect((await keys.current()).kid).toBe(before[0]);
    const rows = await test.admin<{ sign_from: Date; publish_until: Date | null }>(
      'SELECT sign_from, publish_until FROM identity.signing_key ORDER BY sign_from',
    );
    expect(rows.map(({ publish_until }) => publish_until === null)).toEqual([false, true]);
    expect(rows[1]!.sign_from.getTime()).toBeGreaterThan(Date.now() + leadMs / 2);
    expect(rows[0]!.publish_until!.getTime()).toBeGreaterThan(rows[1]!.sign_from.getTime() + 900_000);
  });

  it('leave the key set when their last token has expired', async () => {
    await test.admin(
      `UPDATE identity.signing_key SET publish_until = now() - interval '1 minute' WHERE publish_until IS NOT NULL`,
    );
    expect(await kids()).toHaveLength(1);
    await shop.app.get(IdentityJobs).removeExpired({ now: new Date() });
    expect(await test.admin('SELECT kid FROM identity.signing_key')).toHaveLength(1);
  });

  it('sealed with another secret are replaced at the start', async () => {
    const [lost] = await kids();
    const other = await start(`another ${secret}`);
    try {
      const current = await other.app.get(SigningKeys).current();
      expect(current.kid).not.toBe(lost);
      expect(await kids()).toEqual(expect.arrayContaining([lost, current.kid]));
    } finally {
      await other.close();
    }
  });
});
