import { join } from 'node:path';
import { contracts } from '@banyan/contracts';
import { RoutingFollower } from '@banyan/extraction';
import { canaryFlagsFrom } from '@banyan/extraction/flags';
import { ReadOperations } from '@banyan/extraction/parity';
import { type Config, keptSecret } from '@banyan/platform/config';
import { RedisLink } from '@banyan/platform/redis';
import { readiness, rootLogger } from '@banyan/platform/telemetry';
import { AccessLog } from './access-log.js';
import { AdminServer } from './admin.js';
import { Directory, type RouteRule } from './directory.js';
import { Proxy } from './proxy.js';
import { Reporter } from './reporter.js';
import { RedisTokens } from './shared-tokens.js';

/** Every context's routes, as the contracts publish them; what nobody claims is the monolith's. */
export const routesOfContracts = (): RouteRule[] => [
  ...contracts.flatMap(({ name, routes, keyed }) => routes.map((path: string) => ({ path, context: name, keyed }))),
  { path: '/', context: 'rest' },
];

const WITHOUT_REDIS = 'while a canary runs, who is known reads from the owner; the rest goes on';

export interface BanyanProxy {
  readonly proxy: Proxy;
  readonly port: number;
  readonly internalPort: number;
  /** Drains and closes. */
  close(): Promise<void>;
}

/**
 * The proxy of the shop: routes from the contracts, stages from the control plane or from what it last said, and without
 * either everything from the monolith on its port.
 */
export async function startBanyanProxy(config: Config): Promise<BanyanProxy> {
  const { extraction, http, stateDir, telemetry } = config;
  const { controlUrls } = extraction;
  const token = controlUrls ? (extraction.clientToken ?? keptSecret(stateDir, 'client-token')) : '';
  const follower = controlUrls
    ? new RoutingFollower({ controlUrls, token, file: join(stateDir, 'routing', 'proxy.json') })
    : undefined;
  const log = rootLogger().child({ context: 'Flags' });
  const canary = canaryFlagsFrom(config, 'proxy', (message) => log.warn({ msg: message }));
  const redis = config.redisUrl === undefined ? undefined : new RedisLink(config.redisUrl, WITHOUT_REDIS);
  await Promise.all([follower?.start(1_000), canary.start(), redis?.start()]);
  if (redis) readiness.degraded('redis', () => (redis.up ? undefined : `${redis.where} does not answer`));

  const proxy = new Proxy({
    directory: new Directory(routesOfContracts(), extraction.monolith.http, follower),
    canary,
    operations: new ReadOperations(contracts),
    limits: {
      headersMs: http.headersTimeoutMs,
      requestMs: http.requestTimeoutMs,
      uploadMs: http.uploadTimeoutMs,
      holdMs: extraction.holdMs,
      bodyBytes: http.bodyLimitBytes,
      connections: http.maxConnections,
      requestsPerSocket: http.maxRequestsPerSocket,
      drainMs: http.shutdownMs,
    },
    servedBy: http.servedBy !== 'off',
    trustedProxies: http.trustedProxies,
    shared: redis && new RedisTokens(redis),
    access: new AccessLog(telemetry.logLevel),
  });
  const reporter = controlUrls && new Reporter(proxy.edge.figures, controlUrls, token);
  const admin = new AdminServer(proxy);
  await admin.listen(http.internalPort, http.internalHost);
  try {
    await proxy.listen(http.port, http.host);
  } catch (error) {
    redis?.close();
    await admin.close();
    throw error;
  }
  return {
    proxy,
    port: proxy.port,
    internalPort: admin.port,
    close: async () => {
      await proxy.close();
      await reporter?.stop();
      canary.stop();
      await follower?.stop();
      redis?.close();
      await admin.close();
    },
  };
}
