import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Unleash } from 'unleash-client';
import { type Canary, CanaryFlags, canaryFlag, staticCanary, targetFlag } from '@banyan/extraction/flags';
import { eventually, testDatabase } from '@banyan/testing';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { FlagStore, TargetChange } from '../../apps/control-plane/src/flags/index.js';
import {
  ANSWER_MS,
  type FlagServer,
  Gateway,
  REFRESH_MS,
  ownServer,
  unleashServer,
} from './flag-servers.spec-support.js';

vi.setConfig({ testTimeout: 120_000 });

const forOwn = testDatabase({ contexts: [] });
const forUnleash = testDatabase({ contexts: [] });
const forControl = testDatabase({ contexts: [] });
const users = Array.from({ length: 400 }, (_, index) => `user-${index}`);

const folder = mkdtempSync(join(tmpdir(), 'banyan-flags-'));
const servers: Record<string, FlagServer> = {};
beforeAll(async () => {
  const [own, unleash] = await Promise.all([
    ownServer(forOwn.adminUrl, folder),
    unleashServer(forUnleash.adminUrl, forControl.adminUrl, folder),
  ]);
  Object.assign(servers, { own, unleash });
  console.log(`unleash-server answered after ${unleash.startedInMs} ms`);
}, 200_000);
afterAll(async () => {
  await Promise.all(Object.values(servers).map((server) => server.stop()));
  rmSync(folder, { recursive: true });
});

/** A call of Unleash's admin API. */
async function admin(server: FlagServer, method: string, path: string, body?: unknown) {
  const answer = await fetch(`${server.api}admin/projects/default/features${path}`, {
    method,
    headers: { authorization: server.adminToken, ...(body !== undefined && { 'content-type': 'application/json' }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, body: text ? (JSON.parse(text) as Record<string, unknown>) : undefined };
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- answers of an API, looked into
const json = async (server: FlagServer, method: string, path: string, body?: unknown): Promise<any> => {
  const answer = await admin(server, method, path, body);
  expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  return answer.body;
};

const env = (flag: string, rest: string) => `/${flag}/environments/development/${rest}`;
const visible = { timeoutMs: 30_000 };

describe.each(['own', 'unleash'])('flags kept by %s', (kind) => {
  let server: FlagServer;
  let gateway: Gateway;
  let store: FlagStore;
  let stopStore: () => Promise<void>;
  const routers: Canary[] = [];
  const [target, canary] = [targetFlag('inventory'), canaryFlag('inventory')];
  const stage = () => store.targets()['inventory']?.stage;
  const percent = () => store.targets()['inventory']?.percent;

  beforeAll(async () => {
    server = servers[kind] as FlagServer;
    gateway = new Gateway(server.api);
    await gateway.start();
    ({ store, stop: stopStore } = await server.store(gateway.api));
    await eventually(() => Object.keys(store.targets()).length === 2, visible);
  });
  afterAll(async () => {
    for (const router of routers) router.stop();
    await stopStore();
    gateway.stop();
  });

  async function router(name: string, timeoutMs = ANSWER_MS): Promise<Canary> {
    const flags = new CanaryFlags({
      urls: [gateway.api],
      apiToken: server.clientToken,
      appName: `banyan-${name}`,
      refreshMs: REFRESH_MS,
      timeoutMs,
      backupFile: join(folder, kind, `${name}.json`),
    });
    routers.push(flags);
    await flags.start();
    return flags;
  }
  const noProblems = () => eventually(() => expect(store.problems()).toEqual({}), visible);
  /** Until `targets()` shows it, however long the server takes to. */
  async function set(context: string, change: TargetChange): Promise<void> {
    try {
      await store.setTarget(context, change);
    } catch (error) {
      if (!/took the change but does not show it/.test((error as Error).message)) throw error;
      const { stage, percent } = change;
      await eventually(() => {
        const now = store.targets()[context];
        return now?.stage === stage && (percent === undefined || now.percent === percent);
      }, visible);
    }
  }
  const placed = (flags: Canary) => users.filter((userId) => flags.isService('inventory', { userId })).length;
  const expected = (share: number) => placed(staticCanary({ inventory: share }));

  it('starts with every context in the monolith', async () => {
    expect(store.targets()).toEqual({
      inventory: { stage: 'monolith', percent: 10 },
      orders: { stage: 'monolith', percent: 10 },
    });
    await noProblems();
  });

  it('a target that is set is the target, with its percentage, and audited', async () => {
    let heard = 0;
    const forget = store.onChange(() => heard++);
    await set('inventory', { stage: 'canary', percent: 40, actor: 'ann', reason: 'a try' });
    forget();
    expect(store.targets()).toEqual({
      inventory: { stage: 'canary', percent: 40 },
      orders: { stage: 'monolith', percent: 10 },
    });
    expect(heard).toBeGreaterThan(0);
    expect(server.audited.filter(({ actor }) => actor === 'ann')).toEqual([
      {
        actor: 'ann',
        action: 'target',
        context: 'inventory',
        detail: { stage: 'canary', percent: 40, before: { stage: 'monolith', percent: 10 } },
        reason: 'a try',
      },
    ]);
    await expect(store.setTarget('nosuch', { stage: 'live', actor: 'ann', reason: null })).rejects.toMatchObject({
      code: 'FLAG_UNKNOWN',
    });
  });

  it('routers place users as the percentage says: the same user always alike, more when it grows', async () => {
    const flags = await router('sticky');
    await eventually(() => placed(flags) === expected(40), visible);
    expect(expected(40) / users.length).toBeCloseTo(0.4, 1);
    const before = users.filter((userId) => flags.isService('inventory', { userId }));
    for (const { id } of await json(server, 'GET', env(canary, 'strategies')))
      await json(server, 'PUT', env(canary, `strategies/${id}`), {
        name: 'flexibleRollout',
        parameters: { rollout: '60', stickiness: 'default', groupId: canary },
        constraints: [],
      });
    await eventually(() => placed(flags) === expected(60), visible);
    expect(before.every((userId) => flags.isService('inventory', { userId }))).toBe(true);
    expect(stage()).toBe('canary');
  });

  it('sticks to the user, else the session; who has neither stays with the monolith', async () => {
    const flags = await router('sticky');
    const chosen = users.find((id) => flags.isService('inventory', { userId: id })) as string;
    const other = users.find((id) => !flags.isService('inventory', { userId: id })) as string;
    expect(flags.isService('inventory', { sessionId: chosen })).toBe(true);
    expect(flags.isService('inventory', { sessionId: other })).toBe(false);
    expect(flags.isService('inventory', { userId: other, sessionId: chosen })).toBe(false);
    expect(flags.isService('inventory', { userId: chosen, sessionId: other })).toBe(true);
    for (let n = 0; n < 100; n++)
      expect(flags.isService('inventory', { userId: '', sessionId: undefined })).toBe(false);
    expect(flags.isService('nosuch', { userId: chosen })).toBe(false);
  });

  it("Unleash's own client, told nothing of us, comes to the same decisions", async () => {
    const client = new Unleash({
      url: server.api,
      appName: 'somebody',
      customHeaders: { authorization: server.clientToken },
      backupPath: folder,
      refreshInterval: REFRESH_MS,
      metricsInterval: 60_000,
      skipInstanceCountWarning: true,
    });
    const [warnings, registered] = [[] as unknown[], [] as unknown[]];
    client.on('warn', (warning) => warnings.push(warning)).on('error', (error) => warnings.push(error));
    client.on('registered', (payload) => registered.push(payload));
    await new Promise((resolve) => client.once('synchronized', resolve));
    const flags = await router('sticky');
    for (const userId of users)
      expect(client.isEnabled(canary, { userId })).toBe(flags.isService('inventory', { userId }));
    const asked = () => client.getVariant(target, { userId: 'any' });
    await eventually(() => asked().name === 'canary' && asked().feature_enabled, visible);
    await eventually(() => registered.length === 1, visible);
    await client.flushMetrics();
    await new Promise((resolve) => client.once('unchanged', resolve));
    expect(warnings).toEqual([]);
    client.destroy();
  });

  it('off is the monolith, on again is the stage it had; both by plain calls of the admin API', async () => {
    await eventually(() => percent() === 60, visible);
    await json(server, 'POST', env(target, 'off'));
    await eventually(() => stage() === 'monolith', visible);
    await json(server, 'POST', env(target, 'on'));
    await eventually(() => stage() === 'canary', visible);
  });

  it('what the flag says and cannot mean changes nothing, and is told; a restart forgets nothing', async () => {
    const [first] = await json(server, 'GET', env(target, 'strategies'));
    const say = (parameters: object, ...variants: string[]) =>
      json(server, 'PUT', env(target, `strategies/${first.id}`), {
        name: 'flexibleRollout',
        parameters: { rollout: '100', stickiness: 'default', groupId: target, ...parameters },
        variants: variants.map((name) => ({ name, weight: 1000, weightType: 'variable', stickiness: 'default' })),
      });
    const told = (words: RegExp) => eventually(() => words.test(store.problems()['inventory'] ?? ''), visible);

    await say({}, 'everything');
    await told(/names "everything", which is no stage/);
    expect(stage()).toBe('canary');
    const again = await server.store(gateway.api);
    await eventually(() => again.store.problems()['inventory'], visible);
    expect(again.store.targets()['inventory']).toEqual({ stage: 'canary', percent: 60 });
    await again.stop();
    await say({ rollout: '50' }, 'live');
    await told(/is on for some callers only/);
    expect(stage()).toBe('canary');
    await say({}, 'shadow');
    await eventually(() => stage() === 'shadow', visible);
    await noProblems();
  });

  it('variants of the flag itself, as older Unleash servers have them, are understood too', async () => {
    const [first] = await json(server, 'GET', env(target, 'strategies'));
    await json(server, 'PUT', env(target, `strategies/${first.id}`), { name: 'flexibleRollout' });
    await json(server, 'PUT', env(target, 'variants'), [{ name: 'replicate', weight: 1000, weightType: 'variable' }]);
    await eventually(() => stage() === 'replicate', visible);
    await json(server, 'PATCH', env(target, 'variants'), [{ op: 'replace', path: '/0/name', value: 'live' }]);
    await eventually(() => stage() === 'live', visible);
  });

  // Every kind of bad answer is in the specs of libs/extraction; these are one of each sort.
  it.each(['down', 'slow', 'nonsense', 'empty', 'half'] as const)(
    'a flag server that is %s: the last known flags hold, for one that starts now as well',
    async (weather) => {
      const flags = await router('steady');
      const before = expected(60);
      await eventually(() => placed(flags) === before, visible);
      gateway.weather = weather;
      try {
        // It begins with what it knows, although it would wait for an answer longer than this test may take.
        const fresh = await router('steady', 600_000);
        expect(placed(fresh)).toBe(before);
        if (kind === 'unleash') {
          await eventually(() => Object.keys(store.problems()).length === 2, visible);
          const again = await server.store(gateway.api);
          expect(again.store.targets()['inventory']).toEqual({ stage: 'live', percent: 60 });
          await again.stop();
        }
        expect(placed(flags)).toBe(before);
        expect(store.targets()['inventory']).toEqual({ stage: 'live', percent: 60 });
        expect(placed(await router(`new-${weather}`))).toBe(0);
      } finally {
        gateway.weather = 'fine';
      }
      const anew = routers.at(-1) as Canary;
      await eventually(() => placed(anew) === before, visible);
      await noProblems();
      for (const each of routers.splice(-3)) each.stop();
    },
  );

  it('goes back to the monolith when told to', async () => {
    await set('inventory', { stage: 'monolith', actor: 'ann', reason: null });
    expect(store.targets()['inventory']).toEqual({ stage: 'monolith', percent: 60 });
    await set('inventory', { stage: 'live', percent: 0, actor: 'ann', reason: null });
    expect(store.targets()['inventory']).toEqual({ stage: 'live', percent: 0 });
  });
});

describe('both', () => {
  const flag = targetFlag('orders');
  const share = canaryFlag('orders');
  const strategy = { name: 'flexibleRollout', parameters: { rollout: '25', stickiness: 'default', groupId: share } };
  const variant = { name: 'shadow', weight: 1000, weightType: 'variable', stickiness: 'default' };

  /** What two servers must agree on: without ids, times, texts for people, and what only one of them has. */
  const [shown, listed] = [
    [
      'name',
      'project',
      'type',
      'stale',
      'archived',
      'environment',
      'enabled',
      'strategies',
      'variants',
      'environments',
    ],
    ['parameters', 'constraints', 'title', 'disabled', 'weight', 'weightType', 'stickiness', 'version', 'features'],
  ];
  const keys = new Set([
    ...shown,
    ...listed,
    'rollout',
    'groupId',
    'hasStrategies',
    'hasEnabledStrategies',
    'variantCount',
  ]);
  const essence = (value: unknown): unknown => {
    if (Array.isArray(value)) {
      const names = value.filter((each) => each?.name !== 'production');
      return names.map(essence).sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)));
    }
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value)
        .filter(([key]) => keys.has(key))
        .sort(([a], [b]) => a.localeCompare(b))
        .map(([key, inner]) => [key, essence(inner)]),
    );
  };

  it('answer the calls of the admin API alike', async () => {
    const ids: Record<string, string> = {};
    const [own, unleash] = [servers['own'] as FlagServer, servers['unleash'] as FlagServer];
    const calls: [method: string, path: string, body?: unknown][] = [
      ['POST', env(flag, 'off')],
      ['GET', ''],
      ['GET', `/${flag}`],
      ['GET', `/${share}`],
      ['GET', env(share, 'strategies')],
      ['POST', env(flag, 'on')],
      ['GET', env(flag, '').replace(/\/$/, '')],
      ['POST', env(flag, 'off')],
      ['POST', env(share, 'strategies'), strategy],
      ['GET', env(share, 'strategies')],
      ['PUT', env(share, 'strategies/ID'), { ...strategy, parameters: { ...strategy.parameters, rollout: '50' } }],
      ['GET', env(share, 'strategies/ID')],
      ['PUT', env(share, 'strategies/ID'), { ...strategy, variants: [variant, { ...variant, name: 'canary' }] }],
      ['PUT', env(share, 'strategies/ID'), { name: 'flexibleRollout', disabled: true, title: 'a title' }],
      ['PUT', env(flag, 'variants'), [variant]],
      [
        'PUT',
        env(flag, 'variants'),
        [
          { name: 'live', weight: 10 },
          { ...variant, weight: 300, weightType: 'fix' },
        ],
      ],
      ['GET', env(flag, 'variants')],
      ['PATCH', env(flag, 'variants'), [{ op: 'add', path: '/-', value: { ...variant, name: 'canary' } }]],
      ['PUT', env(flag, 'variants'), []],
      ['GET', `/${flag}`],
      // What is refused.
      ['GET', '/nosuch'],
      ['POST', env('nosuch', 'on')],
      ['POST', env('nosuch', 'off')],
      ['PUT', env('nosuch', 'variants'), []],
      ['GET', env('nosuch', 'strategies')],
      ['POST', env(flag, 'on').replace('development', 'nowhere')],
      ['GET', env(share, 'strategies/00000000-0000-0000-0000-000000000000')],
      ['PUT', env(share, 'strategies/00000000-0000-0000-0000-000000000000'), strategy],
      ['POST', env(share, 'strategies'), {}],
      ['POST', env(share, 'strategies'), { name: 'whatever' }],
      ['POST', env(share, 'strategies'), { ...strategy, constraints: [{ contextName: 'userId', operator: 'LIKE' }] }],
      ['POST', env(share, 'strategies'), { ...strategy, variants: [{ name: 'shadow' }] }],
      ['POST', env(share, 'strategies'), { ...strategy, variants: [{ ...variant, weightType: 'fix' }] }],
      ['PUT', env(flag, 'variants'), [{ name: 'shadow' }]],
      ['PUT', env(flag, 'variants'), [{ name: 'shadow', weight: 1000 }]],
      ['PUT', env(flag, 'variants'), [{ name: 'shadow', weight: 1001 }]],
      ['PUT', env(flag, 'variants'), variant],
      ['PATCH', env(flag, 'variants'), [{ op: 'replace', path: '/7/name', value: 'x' }]],
    ];
    for (const [method, path, body] of calls) {
      const answers = await Promise.all(
        Object.entries({ own, unleash }).map(async ([name, server]) => {
          const answer = await admin(server, method, path.replace('ID', ids[name] ?? 'none'), body);
          if (method === 'POST' && body === strategy) ids[name] = String(answer.body?.['id']);
          return answer;
        }),
      );
      const [ours, theirs] = answers.map(({ status, body }) => ({ status, body: status < 300 ? essence(body) : null }));
      expect(ours, `${method} ${path} ${JSON.stringify(body)}`).toEqual(theirs);
    }
  });

  it('let nobody in with a wrong token, or with the other one', async () => {
    for (const server of Object.values(servers)) {
      const status = async (token: string | undefined, path: string) =>
        (await fetch(`${server.api}${path}`, { headers: token === undefined ? {} : { authorization: token } })).status;
      expect(await status(undefined, 'client/features')).toBe(401);
      expect(await status('something else', 'client/features')).toBe(401);
      expect(await status(undefined, 'admin/projects/default/features')).toBe(401);
      expect(await status(server.clientToken, 'admin/projects/default/features')).toBe(403);
    }
  });

  it('answer 304 to who knows the flags already', async () => {
    for (const server of Object.values(servers)) {
      const ask = (etag?: string) =>
        fetch(`${server.api}client/features?namePrefix=extraction.`, {
          headers: { authorization: server.clientToken, ...(etag && { 'if-none-match': etag }) },
        });
      await eventually(async () => {
        const etag = (await ask()).headers.get('etag') as string;
        return (await ask(etag)).status === 304;
      }, visible);
    }
  });
});
