import { type Example, Id, Role, command, defineContext, drawn, event, query } from '@banyan/kernel';
import { z } from 'zod';
import { Instant, NOBODY, Nothing, PageInput, page } from './common.js';

export const User = z
  .strictObject({ id: Id, email: z.email(), name: z.string(), roles: z.array(Role), createdAt: Instant })
  .meta({ id: 'User' });

/** A public ES256 key as RFC 7517 has it. */
export const PublicJwk = z.strictObject({
  kty: z.literal('EC'),
  crv: z.literal('P-256'),
  x: z.string(),
  y: z.string(),
  kid: z.string(),
  alg: z.literal('ES256'),
  use: z.literal('sig'),
});

/** Compared without case: there is one account per address, however it is written. */
export const Email = z.email().max(254).toLowerCase();

/** Control characters and lone surrogates are refused: Postgres stores neither in text and jsonb alike. */
export const PersonName = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'no control characters');

/** Hex SHA-256 of a refresh token: the token itself never enters a command. */
const TokenHash = z.string().regex(/^[0-9a-f]{64}$/);

/** Who has an account, the first ones first. For staff, and for probes, which ask as somebody. */
const userIds = query({
  input: PageInput,
  output: page(Id),
  errors: { CURSOR_INVALID: 'invalid' },
  examples: [{ limit: 20 }, { limit: 1 }],
});

/** Examples of a query that answers who asks: as each of the first users, and as one who has nothing yet. */
export const asEachUser = <I>(input: I) => ({
  drawn: drawn(userIds, { limit: 10 }, ({ items }): Example<I>[] =>
    [...items, NOBODY].map((id) => ({ input, as: { kind: 'user', id, roles: ['customer'] } })),
  ),
});

export const identity = defineContext('identity', {
  routes: ['/v1/auth', '/v1/me', '/.well-known/jwks.json'],
  reads: {
    'GET /v1/me': { query: 'user' },
    'GET /.well-known/jwks.json': { query: 'jwks', public: true },
  },
  queries: {
    jwks: query({ input: Nothing, output: z.strictObject({ keys: z.array(PublicJwk) }), examples: [{}] }),
    user: query({
      input: z.strictObject({ id: Id }),
      output: User,
      errors: { USER_NOT_FOUND: 'not_found' },
      examples: [{ id: NOBODY }],
      drawn: drawn(userIds, { limit: 20 }, ({ items }) => items.map((id) => ({ input: { id } }))),
    }),
    userIds,
    /** What a login is checked against. Asked and answered within the system only. */
    credentials: query({
      input: z.strictObject({ email: Email }),
      output: z.strictObject({ account: z.strictObject({ user: User, passwordHash: z.string() }).nullable() }),
      examples: [{ email: 'customer@example.com' }, { email: 'nobody@example.com' }],
    }),
    /** The keys that sign, each sealed: only who holds the system's secret can open one. Within the system only. */
    signingKeys: query({
      input: Nothing,
      output: z.strictObject({
        keys: z.array(
          z.strictObject({
            kid: z.string(),
            sealedPrivateJwk: z.string(),
            createdAt: Instant,
            signFrom: Instant,
            publishUntil: Instant.nullable(),
          }),
        ),
      }),
      examples: [{}],
    }),
  },
  commands: {
    register: command({
      input: z.strictObject({
        email: Email,
        name: PersonName,
        passwordHash: z.string(),
        /** Only the system hands out more than `customer`. */
        roles: z.array(Role).default(['customer']),
      }),
      output: User,
      key: (i) => i.email,
      errors: { EMAIL_TAKEN: 'conflict', ROLES_NOT_ALLOWED: 'forbidden' },
    }),
    /** Starts a family of refresh tokens: each lives until `expiresAt`, none of them past `endsAt`. */
    openSession: command({
      input: z.strictObject({ userId: Id, tokenHash: TokenHash, expiresAt: Instant, endsAt: Instant }),
      output: z.strictObject({ sessionId: Id }),
      key: (i) => i.userId,
      errors: { USER_NOT_FOUND: 'not_found', INVALID_CREDENTIALS: 'unauthenticated' },
    }),
    /** Swaps a refresh token for the next one. A token used twice revokes its whole family, and says so. */
    rotateSession: command({
      input: z.strictObject({ tokenHash: TokenHash, nextTokenHash: TokenHash, expiresAt: Instant }),
      output: z.discriminatedUnion('status', [
        z.strictObject({ status: z.literal('rotated'), sessionId: Id, user: User }),
        z.strictObject({ status: z.literal('reused') }),
        z.strictObject({ status: z.literal('invalid') }),
      ]),
      key: (i) => i.tokenHash,
      errors: { INVALID_REFRESH_TOKEN: 'unauthenticated' },
    }),
    closeSession: command({
      input: z.strictObject({ tokenHash: TokenHash }),
      output: Nothing,
      key: (i) => i.tokenHash,
    }),
    /**
     * Publishes a key that signs from `signFrom` on; the key it replaces stays published until `publishUntil`, when
     * every token it signed has expired. Only the first to replace a key does: `kid` is the newest key either way.
     */
    rotateSigningKey: command({
      input: z.strictObject({
        publicJwk: PublicJwk,
        sealedPrivateJwk: z.string(),
        replaces: z.string().nullable(),
        signFrom: Instant,
        publishUntil: Instant,
      }),
      output: z.strictObject({ kid: z.string() }),
      key: () => 'signing-key',
    }),
    /** Forgets sessions and signing keys whose time is over, `limit` sessions at most. */
    removeExpired: command({
      input: z.strictObject({ limit: z.int().min(1).max(1_000) }),
      output: z.strictObject({ sessions: z.int(), keys: z.int() }),
      key: () => 'expired',
    }),
  },
  events: {
    UserRegistered: event(1, 'user', z.strictObject({ userId: Id, email: z.email(), name: z.string() })),
  },
  subscribes: [],
});
