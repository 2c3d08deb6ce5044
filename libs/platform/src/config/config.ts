import { join, resolve } from 'node:path';
import type { Side } from '@banyan/kernel';
import { z } from 'zod';
import { httpOrigin, httpUrl, network } from './addresses.js';

const port = z.coerce.number().int().min(0).max(65_535);
const ms = z.coerce
  .number()
  .int()
  .min(0)
  .max(24 * 60 * 60 * 1000);
const seconds = z.coerce.number().int().min(1);
const count = z.coerce.number().int().min(1);
const instances = count.max(16).default(1);
const flag = z.enum(['on', 'off', 'true', 'false', '1', '0']).transform((word) => ['on', 'true', '1'].includes(word));
const secret = z.string().min(16, 'at least 16 characters');
const redisUrl = z.url({ protocol: /^rediss?$/, error: 'a redis:// or rediss:// URL' });
const list = z.string().transform((text) =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean),
);
const listOf = <T>(each: z.ZodType<T>, error: string) =>
  list
    .refine((parts) => parts.length > 0 && parts.every((part) => each.safeParse(part).success), error)
    .transform((parts) => parts.map((part) => each.parse(part)));
const address = z
  .string()
  .regex(/^[^\s/]+:\d{1,5}$/)
  .transform((text) => {
    const colon = text.lastIndexOf(':');
    return { host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) };
  });
const databaseUrl = z.url({ protocol: /^postgres(ql)?$/, error: 'a postgres:// URL' });

/** Every setting there is, under the name it has in the environment. Units are in the names. */
const environment = z.object({
  PORT: port.default(8080),
  /** Not the whole network: with the embedded database there are demo accounts with a known password. */
  HOST: z.string().default('127.0.0.1'),
  INTERNAL_PORT: port.default(9464),
  INTERNAL_HOST: z.string().default('127.0.0.1'),
  BANYAN_STATE_DIR: z.string().min(1).default('.banyan'),
  BANYAN_SEED: flag.optional(),
  BANYAN_SERVED_BY: z.enum(['monolith', 'service', 'off']).default('monolith'),
  BANYAN_RATE_LIMITS: flag.default(true),
  BANYAN_WRITES_PER_SECOND: count.default(5_000),
  BANYAN_TRUSTED_PROXIES: listOf(network, 'addresses or networks such as 10.0.0.0/8, separated by commas').default([]),

  BANYAN_BODY_LIMIT_BYTES: count.default(1_048_576),
  BANYAN_JSON_DEPTH: count.max(1_000).default(32),
  BANYAN_HEADERS_TIMEOUT_MS: ms.default(10_000),
  BANYAN_REQUEST_TIMEOUT_MS: ms.default(30_000),
  BANYAN_UPLOAD_TIMEOUT_MS: ms.default(10 * 60_000),
  BANYAN_MAX_CONNECTIONS: count.default(10_000),
  BANYAN_MAX_REQUESTS_PER_SOCKET: z.coerce.number().int().min(0).default(10_000),
  BANYAN_SHUTDOWN_MS: ms.default(10_000),

  MONOLITH_PORT: port.default(3_000),
  RPC_PORT: port.default(3_001),
  RPC_HOST: z.string().default('127.0.0.1'),
  MONOLITH_RPC_HOST: z.string().default('127.0.0.1'),
  MONOLITH_RPC_PORT: port.default(3_001),
  MONOLITH_URLS: listOf(httpOrigin, 'addresses such as http://127.0.0.1:3000, separated by commas').optional(),
  MONOLITH_RPC_ADDRESSES: listOf(address, 'addresses such as 127.0.0.1:3001, separated by commas').optional(),
  SERVICE_PORTS_FROM: port.default(3_101),
  BANYAN_MONOLITHS: instances,
  BANYAN_PROXIES: instances,
  BANYAN_CONTROL_PLANES: instances,
  BANYAN_SERVICES: instances,
  CONTROL_PORT: port.default(8_090),
  CONTROL_HOST: z.string().default('127.0.0.1'),
  CONTROL_URL: listOf(httpUrl, 'http:// or https:// URLs, separated by commas').optional(),
  BANYAN_OPERATOR_TOKEN: secret.optional(),
  BANYAN_CLIENT_TOKEN: secret.optional(),
  BANYAN_CONTEXT: z.string().min(1).optional(),
  BANYAN_RUNTIME: z.enum(['processes', 'kubernetes']).default('processes'),
  BANYAN_NAMESPACE: z.string().min(1).default('banyan'),
  BANYAN_HOLD_MS: ms.default(2_000),
  BANYAN_WAL_KEEP_MB: count.default(2_048),
  BANYAN_FAIL_POINTS: z.string().optional(),
  UNLEASH_URL: httpUrl.optional(),
  UNLEASH_API_TOKEN: z.string().min(1).optional(),
  UNLEASH_ADMIN_TOKEN: z.string().min(1).optional(),
  UNLEASH_PROJECT: z.string().min(1).default('default'),
  UNLEASH_ENVIRONMENT: z.string().min(1).default('development'),
  BANYAN_FLAGS_REFRESH_MS: ms.default(1_000),

  NATS_URL: listOf(z.url({ protocol: /^(nats|tls)$/ }), 'nats:// or tls:// URLs, separated by commas').optional(),
  NATS_USER: z.string().min(1).optional(),
  NATS_PASSWORD: z.string().min(1).optional(),
  NATS_SECRET: z.string().min(32, 'at least 32 characters').optional(),
  NATS_TLS_CA: z.string().min(1).optional(),
  NATS_TLS_CERT: z.string().min(1).optional(),
  NATS_TLS_KEY: z.string().min(1).optional(),
  BANYAN_RPC: z.enum(['tcp', 'nats']).optional(),
  BANYAN_EVENTS: z.enum(['direct', 'jetstream']).optional(),
  BANYAN_BRIDGE_LOG: z.enum(['slot', 'jetstream']).default('slot'),
  REDIS_URL: redisUrl.optional(),

  DATABASE_URL: databaseUrl.optional(),
  BANYAN_DATABASE_URL_MONOLITH: databaseUrl.optional(),
  BANYAN_DATABASE_URL_SERVICE: databaseUrl.optional(),
  BANYAN_DB_POOL_SIZE: count.max(500).default(10),
  BANYAN_DB_CONNECT_TIMEOUT_MS: ms.default(5_000),
  BANYAN_DB_STATEMENT_TIMEOUT_MS: ms.default(15_000),

  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl.optional(),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),

  BANYAN_TOKEN_ISSUER: z.string().min(1).default('banyan'),
  BANYAN_TOKEN_AUDIENCE: z.string().min(1).default('banyan-api'),
  BANYAN_ACCESS_TOKEN_SECONDS: seconds.max(900, 'at most 15 minutes').default(900),
  BANYAN_REFRESH_TOKEN_SECONDS: seconds.default(30 * 24 * 60 * 60),
  BANYAN_SESSION_SECONDS: seconds.default(90 * 24 * 60 * 60),
  BANYAN_SIGNING_KEY_SECONDS: seconds.default(30 * 24 * 60 * 60),
  BANYAN_SECRET: z.string().min(32, 'at least 32 characters').optional(),
  BANYAN_PASSWORD_MEMORY_KIB: z.coerce.number().int().min(19_456).default(19_456),
  BANYAN_PASSWORD_PASSES: z.coerce.number().int().min(2).default(2),
  BANYAN_PASSWORD_HASHES_AT_ONCE: count.max(64).default(2),
  BANYAN_PASSWORD_HASHES_WAITING: count.default(500),

  PSP_URL: httpUrl.optional(),
  PSP_TIMEOUT_MS: ms.default(2_000),
  PSP_WEBHOOK_SECRET: secret.optional(),
  PSP_PORT: port.default(8091),
  PSP_WEBHOOK_URL: httpUrl.optional(),
  PSP_3DS_AUTO_MS: ms.default(0),
  PSP_HANG_MS: ms.default(30_000),
  CARRIER_WEBHOOK_SECRET: secret.optional(),
  BANYAN_CARRIER_DISPATCH_MS: ms.default(3_000),
  BANYAN_CARRIER_DELIVERY_MS: ms.default(10_000),
  BANYAN_RESERVATION_MS: ms.default(15 * 60_000),
});

const contextUrl = /^([A-Z][A-Z0-9]*?)(_SERVICE)?_DATABASE_URL$/;

/** The settings of one process, read once. Inject it by this class. */
export class Config {
  readonly http;
  readonly database;
  readonly rpc;
  readonly nats;
  readonly natsSecret;
  readonly transports;
  readonly redisUrl;
  readonly extraction;
  readonly instances;
  readonly flags;
  readonly telemetry;
  readonly auth;
  readonly payments;
  readonly psp;
  readonly shipping;
  readonly inventory;
  /** Absolute path of the folder that holds everything kept between two starts. */
  readonly stateDir: string;
  /** Put the demo catalogue and accounts in? Only if asked for, or with the embedded database. */
  readonly seed: boolean;

  constructor(
    env: z.output<typeof environment>,
    contextDatabaseUrls: Readonly<Record<Side, Readonly<Record<string, string>>>>,
  ) {
    this.stateDir = resolve(env.BANYAN_STATE_DIR);
    this.seed = env.BANYAN_SEED ?? env.DATABASE_URL === undefined;
    this.http = {
      port: env.PORT,
      host: env.HOST,
      /** Where probes and metrics answer: never the public port. */
      internalPort: env.INTERNAL_PORT,
      internalHost: env.INTERNAL_HOST,
      /** What `Banyan-Served-By` says; `off` leaves the header out. */
      servedBy: env.BANYAN_SERVED_BY,
      rateLimits: env.BANYAN_RATE_LIMITS,
      writesPerSecond: env.BANYAN_WRITES_PER_SECOND,
      /** Addresses and networks whose X-Forwarded-For is believed. */
      trustedProxies: env.BANYAN_TRUSTED_PROXIES,
      bodyLimitBytes: env.BANYAN_BODY_LIMIT_BYTES,
      jsonDepth: env.BANYAN_JSON_DEPTH,
      headersTimeoutMs: env.BANYAN_HEADERS_TIMEOUT_MS,
      requestTimeoutMs: env.BANYAN_REQUEST_TIMEOUT_MS,
      uploadTimeoutMs: env.BANYAN_UPLOAD_TIMEOUT_MS,
      maxConnections: env.BANYAN_MAX_CONNECTIONS,
      maxRequestsPerSocket: env.BANYAN_MAX_REQUESTS_PER_SOCKET,
      shutdownMs: env.BANYAN_SHUTDOWN_MS,
    } as const;
    /** Undefined: no broker; calls go over TCP, events from inbox to inbox. */
    this.nats = env.NATS_URL && {
      servers: env.NATS_URL,
      /** Unless the URL has them. */
      user: env.NATS_USER,
      password: env.NATS_PASSWORD,
      /** Files. */
      tls: { ca: env.NATS_TLS_CA, cert: env.NATS_TLS_CERT, key: env.NATS_TLS_KEY },
    };
    /**
     * What the passwords of NATS's users derive from: for `banyan up` and `banyan nats-config` only, which hand each process
     * its own. Undefined: kept in the state folder.
     */
    this.natsSecret = env.NATS_SECRET;
    /** How messages get from process to process. Events that are in a stream are taken from it in either mode. */
    this.transports = {
      rpc: env.BANYAN_RPC ?? (env.NATS_URL ? 'nats' : 'tcp'),
      events: env.BANYAN_EVENTS ?? (env.NATS_URL ? 'jetstream' : 'direct'),
      bridge: env.BANYAN_BRIDGE_LOG,
    } as const;
    /** Undefined: jobs wait in Postgres, limits and caches are each process's own. */
    this.redisUrl = env.REDIS_URL;
    this.database = {
      /** Undefined: the embedded Postgres under the state folder. */
      url: env.DATABASE_URL,
      /** `<CONTEXT>_DATABASE_URL` by context name, where one is set: the monolith's side. */
      contextUrls: contextDatabaseUrls.monolith,
      /** `<CONTEXT>_SERVICE_DATABASE_URL` likewise: the database of the extracted service. */
      serviceUrls: contextDatabaseUrls.service,
      /** Connections per context. */
      poolSize: env.BANYAN_DB_POOL_SIZE,
      connectTimeoutMs: env.BANYAN_DB_CONNECT_TIMEOUT_MS,
      statementTimeoutMs: env.BANYAN_DB_STATEMENT_TIMEOUT_MS,
    } as const;
    /** Where this process answers the buses of others. */
    this.rpc = { host: env.RPC_HOST, port: env.RPC_PORT } as const;
    this.extraction = {
      /** The control planes, of which one acts; undefined: every context is in the monolith, and stays there. */
      controlUrls: env.CONTROL_URL,
      controlPort: env.CONTROL_PORT,
      controlHost: env.CONTROL_HOST,
      monolithPort: env.MONOLITH_PORT,
      /** Where the monolith's instances answer, for those that nobody has told yet. */
      monolith: {
        http: env.MONOLITH_URLS ?? [`http://${env.MONOLITH_RPC_HOST}:${env.MONOLITH_PORT}`],
        rpc: env.MONOLITH_RPC_ADDRESSES ?? [{ host: env.MONOLITH_RPC_HOST, port: env.MONOLITH_RPC_PORT }],
      },
      servicePortsFrom: env.SERVICE_PORTS_FROM,
      /** What operators authenticate with, and what routers do. Undefined: kept in the state folder. */
      operatorToken: env.BANYAN_OPERATOR_TOKEN,
      clientToken: env.BANYAN_CLIENT_TOKEN,
      /** The one context that a bridge carries. */
      context: env.BANYAN_CONTEXT,
      monolithDatabaseUrl: env.BANYAN_DATABASE_URL_MONOLITH,
      serviceDatabaseUrl: env.BANYAN_DATABASE_URL_SERVICE,
      runtime: env.BANYAN_RUNTIME,
      namespace: env.BANYAN_NAMESPACE,
      /** How long a command is held while its context changes owner: then 503. */
      holdMs: env.BANYAN_HOLD_MS,
      /** How much log may wait for a bridge that is away: in the source, and in NATS when it goes through JetStream. */
      walKeepMb: env.BANYAN_WAL_KEEP_MB,
      /** A folder with a file per step at which a process is to kill itself once (fault tests). */
      failPoints: env.BANYAN_FAIL_POINTS,
    } as const;
    /** How many of each `banyan up` runs; `services`: of each context that has left. */
    this.instances = {
      monoliths: env.BANYAN_MONOLITHS,
      proxies: env.BANYAN_PROXIES,
      controlPlanes: env.BANYAN_CONTROL_PLANES,
      services: env.BANYAN_SERVICES,
    } as const;
    this.flags = {
      /** Undefined: the control plane's own endpoint, which speaks Unleash's client API. */
      url: env.UNLEASH_URL,
      apiToken: env.UNLEASH_API_TOKEN,
      adminToken: env.UNLEASH_ADMIN_TOKEN,
      project: env.UNLEASH_PROJECT,
      environment: env.UNLEASH_ENVIRONMENT,
      refreshMs: env.BANYAN_FLAGS_REFRESH_MS,
    } as const;
    this.telemetry = { otlpEndpoint: env.OTEL_EXPORTER_OTLP_ENDPOINT, logLevel: env.LOG_LEVEL } as const;
    this.auth = {
      issuer: env.BANYAN_TOKEN_ISSUER,
      audience: env.BANYAN_TOKEN_AUDIENCE,
      accessTokenSeconds: env.BANYAN_ACCESS_TOKEN_SECONDS,
      refreshTokenSeconds: env.BANYAN_REFRESH_TOKEN_SECONDS,
      /** A session's end, however often its refresh token is rotated. */
      sessionSeconds: env.BANYAN_SESSION_SECONDS,
      signingKeySeconds: env.BANYAN_SIGNING_KEY_SECONDS,
      /** Seals the private signing keys; the same for every process. Undefined: one is kept in the state folder. */
      secret: env.BANYAN_SECRET,
      /** The cost of one Argon2id hash; never less than OWASP's figures. */
      passwordMemoryKib: env.BANYAN_PASSWORD_MEMORY_KIB,
      passwordPasses: env.BANYAN_PASSWORD_PASSES,
      passwordHashesAtOnce: env.BANYAN_PASSWORD_HASHES_AT_ONCE,
      /** More hashes than this in the queue: 503. */
      passwordHashesWaiting: env.BANYAN_PASSWORD_HASHES_WAITING,
    } as const;
    this.payments = {
      /** Undefined: the built-in provider simulator. */
      pspUrl: env.PSP_URL,
      pspTimeoutMs: env.PSP_TIMEOUT_MS,
      /** Undefined: the app makes one and keeps it in the state folder. */
      pspWebhookSecret: env.PSP_WEBHOOK_SECRET,
    } as const;
    /** What the built-in provider simulator, a process of its own, reads. */
    this.psp = {
      host: '127.0.0.1',
      port: env.PSP_PORT,
      stateDir: join(this.stateDir, 'psp'),
      /** Where it tells outcomes; undefined: nowhere, as if every webhook got lost. */
      webhookUrl: env.PSP_WEBHOOK_URL,
      webhookSecret: env.PSP_WEBHOOK_SECRET,
      /** After this a 3-D Secure challenge succeeds by itself; 0: a customer has to answer it. */
      challengeMs: env.PSP_3DS_AUTO_MS,
      /** How long it keeps silent on the first request with `tok_timeout`. */
      hangMs: env.PSP_HANG_MS,
    } as const;
    this.shipping = {
      /** Undefined: the app makes one and keeps it in the state folder. */
      carrierWebhookSecret: env.CARRIER_WEBHOOK_SECRET,
      dispatchMs: env.BANYAN_CARRIER_DISPATCH_MS,
      deliveryMs: env.BANYAN_CARRIER_DELIVERY_MS,
    } as const;
    this.inventory = { reservationMs: env.BANYAN_RESERVATION_MS } as const;
  }
}

/** Thrown with every problem of the environment at once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  constructor(readonly problems: readonly string[]) {
    super(
      `The settings are not usable (${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}):\n` +
        problems.map((problem) => `  - ${problem}`).join('\n'),
    );
  }
}

/**
 * The typed settings in `env`. Empty variables count as unset, as compose files and shells make them.
 * Values are never repeated in a problem: they may be secrets. Throws ConfigError.
 */
export function loadConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value.trim() !== ''));
  const problems: string[] = [];
  const contextUrls = { monolith: {} as Record<string, string>, service: {} as Record<string, string> };
  for (const [name, value] of Object.entries(set)) {
    const [, context, service] = contextUrl.exec(name) ?? [];
    if (!context) continue;
    if (databaseUrl.safeParse(value).success)
      contextUrls[service ? 'service' : 'monolith'][context.toLowerCase()] = value as string;
    else problems.push(`${name}: must be a postgres:// URL`);
  }
  const parsed = environment.safeParse(set);
  if (!parsed.success)
    problems.unshift(...parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`));
  const needsNats = (['BANYAN_RPC', 'BANYAN_EVENTS', 'BANYAN_BRIDGE_LOG'] as const).filter((name) =>
    ['nats', 'jetstream'].includes(set[name] ?? ''),
  );
  if (!set['NATS_URL']) problems.push(...needsNats.map((name) => `${name}: ${set[name]} needs NATS_URL`));
  if (!set['NATS_TLS_CERT'] !== !set['NATS_TLS_KEY'])
    problems.push('NATS_TLS_CERT, NATS_TLS_KEY: neither goes without the other');
  if (!parsed.success || problems.length > 0) throw new ConfigError(problems);
  return new Config(parsed.data, contextUrls);
}

/**
 * The settings of this process. With unusable ones it says what is wrong with each and exits with 78 (EX_CONFIG).
 * The only place that reads `process.env`.
 */
export function readConfig(overrides: Readonly<Record<string, string>> = {}): Config {
  try {
    return loadConfig({ ...process.env, ...overrides });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(78);
  }
}
