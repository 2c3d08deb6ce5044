import { join } from 'node:path';
import { RoutingFollower } from '@banyan/extraction';
import { type Canary, CanaryFlags, staticCanary, unleashApi } from '@banyan/extraction/flags';
import { ReadOperations } from '@banyan/extraction/parity';
import { type Config, keptSecret } from '@banyan/platform/config';
import { metrics, readiness, rootLogger } from '@banyan/platform/telemetry';
import { AccessLog } from './access-log.js';
import { AdminServer } from './admin.js';
import { BadFile, type ProxyFile, readFile, watchConfig } from './config-file.js';
import { Directory, type RouteRule } from './directory.js';
import { Proxy } from './proxy.js';
import { Reporter } from './reporter.js';

export interface StandaloneProxy {
  readonly port: number;
  readonly adminPort: number;
  /** How long `close` takes at most. */
  readonly drainMs: number;
  /** Drains and closes. */
  close(): Promise<void>;
}

/** What only a new process can change. */
const fixed = ({ listen, admin, control, servedBy, trustedProxies, limits }: ProxyFile): string[] =>
  Object.entries({ listen, admin, control, servedBy, trustedProxies, limits }).map((entry) => JSON.stringify(entry));

const rulesOf = ({ routes }: ProxyFile): RouteRule[] => routes.map(({ percent: _, ...rule }) => rule);

const percentages = ({ routes }: ProxyFile): Canary =>
  staticCanary(Object.fromEntries(routes.map(({ context, percent }) => [context, percent])));

/**
 * The proxy alone, in front of any HTTP monolith: routes, stages and percentages from a file, which is read again when
 * it changes. A bad file is refused whole, and the last good one stays. Throws BadFile when the first one is bad.
 */
export async function startStandalone(path: string, config: Config, access?: AccessLog): Promise<StandaloneProxy> {
  const log = rootLogger().child({ context: 'Proxy' });
  let file = readFile(path);
  const token = config.extraction.clientToken ?? (file.control ? keptSecret(config.stateDir, 'client-token') : '');
  const follower = file.control
    ? new RoutingFollower({ controlUrls: file.control, token, file: join(config.stateDir, 'routing', 'proxy.json') })
    : undefined;
  const canary = file.control
    ? new CanaryFlags({
        urls: (config.flags.url ? [config.flags.url] : file.control).map(unleashApi),
        apiToken: config.flags.url ? (config.flags.apiToken ?? '') : token,
        appName: 'banyan-proxy',
        refreshMs: config.flags.refreshMs,
        backupFile: join(config.stateDir, 'flags', 'proxy.json'),
        environment: config.flags.environment,
      })
    : percentages(file);
  await Promise.all([follower?.start(1_000), canary.start()]);

  const directory = new Directory(rulesOf(file), file.routes[0]!.monolith, follower);
  const proxy = new Proxy({
    ...{ directory, canary, operations: new ReadOperations() },
    limits: { ...unbounded, ...given(file.limits) },
    servedBy: file.servedBy,
    trustedProxies: file.trustedProxies,
    access: access ?? new AccessLog(config.telemetry.logLevel),
  });
  const reporter = file.control ? new Reporter(proxy.edge.figures, file.control, token) : undefined;
  const admin = new AdminServer(proxy);
  await admin.listen(file.admin.port, file.admin.host);
  try {
    await proxy.listen(file.listen.port, file.listen.host);
  } catch (error) {
    await admin.close();
    throw error;
  }
  readiness.open();

  const refused = (problems: readonly string[]): void => {
    metrics.counter('banyan_proxy_files_refused', 'Changes of the file that were not taken').add();
    log.error({ msg: 'the file is refused, and the last good one stays', problems });
  };
  const unwatch = watchConfig(
    path,
    (next) => {
      const was = fixed(file);
      const changed = fixed(next).filter((entry, at) => entry !== was[at]);
      if (changed.length > 0)
        return refused(
          changed.map((entry) => `${path}: ${(JSON.parse(entry) as [string])[0]} cannot change while the proxy runs`),
        );
      file = next;
      if (!next.control) {
        proxy.edge.canary.stop();
        proxy.edge.canary = percentages(next);
      }
      directory.replace(rulesOf(next), next.routes[0]!.monolith);
      log.info({ msg: 'the routes were read again', file: path, routes: next.routes.length });
    },
    ({ problems }: BadFile) => refused(problems),
  );

  return {
    port: proxy.port,
    adminPort: admin.port,
    drainMs: proxy.edge.limits.drainMs,
    close: async () => {
      unwatch();
      await proxy.close();
      await reporter?.stop();
      proxy.edge.canary.stop();
      await follower?.stop();
      await admin.close();
    },
  };
}

/** How large a body may be is for the monolith to say, whoever that is. */
const unbounded = { bodyBytes: Number.MAX_SAFE_INTEGER };

const given = <T extends object>(limits: T): Partial<T> =>
  Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined)) as Partial<T>;
