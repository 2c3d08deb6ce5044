import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@banyan/platform/config';
import { eventually } from '@banyan/testing';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  CanaryFlags,
  canaryFlag,
  canaryFlagsFrom,
  flagServerFrom,
  gradualRollout,
  staticCanary,
  unleashApi,
} from './index.js';

const flag = canaryFlag('inventory');
const rollout = (percent: number | string, more: object = {}) => ({
  name: flag,
  enabled: true,
  strategies: [{ ...gradualRollout(flag, 0), parameters: { rollout: percent, stickiness: 'default', groupId: flag } }],
  ...more,
});
const users = Array.from({ length: 1_000 }, (_, index) => `user-${index}`);

describe('fixed percentages', () => {
  const share = (percent: number) => {
    const canary = staticCanary({ inventory: percent });
    return users.filter((userId) => canary.isService('inventory', { userId }));
  };

  it('0 is nobody, 100 is everybody, and 50 is about half', () => {
    expect(share(0)).toEqual([]);
    expect(share(100)).toEqual(users);
    expect(share(50).length).toBeGreaterThan(450);
    expect(share(50).length).toBeLessThan(550);
  });

  it('who is in stays in when the percentage grows', () => {
    const [some, more] = [share(20), new Set(share(35))];
    expect(some.every((userId) => more.has(userId))).toBe(true);
  });

  it("places by the hash of Unleash's gradual rollout", () => {
    // murmur3 of `<flag>:<user>`, 1 to 100. Another hash here would move every caller at once.
    const canary = Array.from({ length: 100 }, (_, index) => staticCanary({ inventory: index + 1 }));
    const first = (userId: string) => canary.findIndex((each) => each.isService('inventory', { userId })) + 1;
    expect(users.slice(0, 10).map(first)).toEqual([35, 59, 69, 64, 60, 40, 73, 21, 1, 12]);
  });

  it('another context places the same user elsewhere', () => {
    const canary = staticCanary({ inventory: 50, orders: 50 });
    const same = users.filter(
      (userId) => canary.isService('inventory', { userId }) === canary.isService('orders', { userId }),
    );
    expect(same.length).toBeGreaterThan(400);
    expect(same.length).toBeLessThan(600);
  });

  it('user, else session, else the monolith', () => {
    const canary = staticCanary({ inventory: 50 });
    const [inside, outside] = [share(50)[0] as string, users.find((each) => !share(50).includes(each)) as string];
    expect(canary.isService('inventory', { sessionId: inside })).toBe(true);
    expect(canary.isService('inventory', { userId: outside, sessionId: inside })).toBe(false);
    expect(staticCanary({ inventory: 100 }).isService('inventory', {})).toBe(false);
    expect(staticCanary({ inventory: 100 }).isService('inventory', { userId: '' })).toBe(false);
    expect(canary.isService('nosuch', { userId: inside })).toBe(false);
  });

  it('a decision costs microseconds', () => {
    const canary = staticCanary({ inventory: 50 });
    const calls = 20_000;
    const costs = Array.from({ length: 6 }, () => {
      const began = process.cpuUsage();
      for (let n = 0; n < calls; n++) canary.isService('inventory', { userId: users[n % 1000] });
      const spent = process.cpuUsage(began);
      return (spent.user + spent.system) / calls;
    });
    // The first ones are compiled meanwhile, and some machines count as ours what others have taken from us.
    expect(Math.min(...costs)).toBeLessThan(10);
  });
});

describe('the flags of a server', () => {
  /* Longer than any test: only a server that does not answer is too slow. */
  const NEVER = 600_000;
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'banyan-canary-'));
  });
  const opened: { stop(): unknown }[] = [];
  afterEach(() => {
    for (const each of opened.splice(0)) each.stop();
    rmSync(folder, { recursive: true });
    vi.restoreAllMocks();
  });

  type Answer = { status?: number; body?: unknown; raw?: string; hang?: boolean };
  async function server(answer: Answer) {
    const state = { answer, asked: 0, paths: [] as string[], headers: {} as NodeJS.Dict<string | string[]> };
    const http: Server = createServer((request, response) => {
      if (!request.url?.startsWith('/api/client/features')) return void response.writeHead(202).end();
      state.asked++;
      state.paths.push(request.url);
      state.headers = request.headers;
      if (state.answer.hang) return;
      response.writeHead(state.answer.status ?? 200, { 'content-type': 'application/json' });
      response.end(state.answer.raw ?? JSON.stringify(state.answer.body ?? {}));
    });
    // A connection that ends by itself could end under a question.
    http.keepAliveTimeout = 0;
    await new Promise<void>((done) => http.listen(0, '127.0.0.1', done));
    const stop = () => {
      http.closeAllConnections();
      http.close();
    };
    opened.push({ stop });
    const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/api/`;
    return { url, state, stop, say: (...features: unknown[]) => (state.answer = { body: { version: 2, features } }) };
  }
  async function router(url: string | string[], timeoutMs = NEVER) {
    const told: string[] = [];
    const canary = new CanaryFlags({
      urls: [url].flat(),
      apiToken: 'the token',
      appName: 'banyan-proxy',
      refreshMs: 20,
      timeoutMs,
      patienceMs: 0,
      backupFile: join(folder, 'proxy.json'),
      log: (message) => told.push(message),
    });
    opened.push(canary);
    await canary.start();
    return { canary, told };
  }
  const count = (canary: CanaryFlags) => users.filter((userId) => canary.isService('inventory', { userId })).length;
  const expected = count(staticCanary({ inventory: 40 }) as CanaryFlags);

  it('are asked for by their prefix, with the token; only what changes is taken over', async () => {
    const { url, state, say } = await server({ body: { version: 2, features: [rollout(40)] } });
    const { canary } = await router(url);
    await eventually(() => count(canary) === expected);
    expect(state.paths[0]).toBe('/api/client/features?namePrefix=extraction.');
    expect(state.headers).toMatchObject({ authorization: 'the token', 'unleash-appname': 'banyan-proxy' });
    say(rollout(100));
    await eventually(() => count(canary) === users.length);
    say({ ...rollout(100), enabled: false });
    await eventually(() => count(canary) === 0);
  });

  it.each<[string, Answer]>([
    ['nothing', { hang: true }],
    ['401', { status: 401 }],
    ['403', { status: 403 }],
    ['404', { status: 404 }],
    ['429', { status: 429 }],
    ['500', { status: 500 }],
    ['a redirect', { status: 302 }],
    ['no content', { status: 204, raw: '' }],
    ['HTML', { raw: '<html></html>' }],
    ['half of it', { raw: '{"version":2,"features":[{"name":"extr' }],
    ['null', { raw: 'null' }],
    ['a list', { raw: '[]' }],
    ['an object', { raw: '{}' }],
    ['no list of flags', { body: { features: 'none' } }],
    ['no flags', { body: { features: [] } }],
    ['flags of somebody else', { body: { features: [{ name: 'other', enabled: true, strategies: [] }] } }],
    ['flags that are no objects', { body: { features: [null, 7, 'x', []] } }],
    ['a flag without strategies', { body: { features: [rollout(0, { strategies: undefined })] } }],
    ['strategies that are no list', { body: { features: [rollout(0, { strategies: { name: 'default' } })] } }],
    ['enabled as a word', { body: { features: [rollout(0, { enabled: 'no' })] } }],
    ['a rollout of 101', { body: { features: [rollout(101)] } }],
    ['a rollout of -1', { body: { features: [rollout('-1')] } }],
    ['a rollout in words', { body: { features: [rollout('half')] } }],
    ['a rollout of nothing', { body: { features: [rollout('')] } }],
    [
      'constraints without values',
      { body: { features: [rollout(40, { strategies: [{ name: 'default', constraints: [{ values: null }] }] })] } },
    ],
  ])('while it answers %s, the last known ones hold; also for who starts now', async (_, answer) => {
    const { url, state, say } = await server({ body: { version: 2, features: [rollout(40)] } });
    const timeoutMs = answer.hang ? 300 : NEVER;
    const { canary, told } = await router(url, timeoutMs);
    await eventually(() => count(canary) === expected);
    told.length = 0;
    state.answer = answer;
    const asked = state.asked;
    const holds = () => told.filter((line) => line.includes('hold'));
    await eventually(() => state.asked > asked + 1 && holds().length > 0);
    expect(holds()).toHaveLength(1);
    expect(count(canary)).toBe(expected);
    const { canary: restarted } = await router(url, timeoutMs);
    expect(count(restarted)).toBe(expected);
    say(rollout(100));
    await eventually(() => count(canary) === users.length && count(restarted) === users.length);
  });

  it('a server that is gone when a router starts for the first time: all stay with the monolith, and start is quick', async () => {
    const { url, stop } = await server({ hang: true });
    stop();
    const asked = vi.spyOn(globalThis, 'fetch');
    const { canary } = await router(url);
    // The first refusal is enough: in a second it would have asked again and again.
    expect(asked.mock.calls.filter(([at]) => String(at).includes('client/features'))).toHaveLength(1);
    expect(count(canary)).toBe(0);
  });

  it('of several servers the next one is asked while one is away; no caller moves, and nobody is told', async () => {
    const [one, two] = [await server({}), await server({})];
    for (const { say } of [one, two]) say(rollout(40));
    const { canary, told } = await router([one.url, two.url]);
    await eventually(() => count(canary) === expected);
    one.stop();
    const asked = two.state.asked;
    await eventually(() => two.state.asked > asked + 2);
    expect(count(canary)).toBe(expected);
    two.say(rollout(100));
    await eventually(() => count(canary) === users.length);
    expect(told).toEqual([]);
  });

  it('when none of them can be used, the one that is named is the one that gave the reason', async () => {
    const [one, two] = [await server({ status: 500 }), await server({ status: 401 })];
    const { told } = await router([one.url, two.url]);
    await eventually(() => told.length > 0);
    expect(told).toEqual([
      expect.stringContaining(`${new URL(two.url).host} gives no usable answer (it answered 401)`),
    ]);
  });

  it('an outage is told when it lasts, and its end is; a short one is not worth a word', async () => {
    const { url, state, say } = await server({ status: 500 });
    const told: string[] = [];
    const at = {
      ...{ urls: [url], apiToken: '', appName: 'x', refreshMs: 20, timeoutMs: NEVER },
      log: (message: string) => told.push(message),
    };
    const [calm, eager] = [NEVER, 100].map(
      (patienceMs) => new CanaryFlags({ ...at, patienceMs, backupFile: join(folder, `${patienceMs}.json`) }),
    ) as [CanaryFlags, CanaryFlags];
    opened.push(calm, eager);
    await Promise.all([calm.start(), eager.start()]);
    await eventually(() => told.length === 1);
    const asked = state.asked;
    say(rollout(40));
    await eventually(() => state.asked > asked + 3 && told.length === 2);
    expect(told).toEqual([expect.stringMatching(/gives no usable answer/), 'The flag server answers again']);
  });

  it('a last known state that cannot be read is told, and replaced', async () => {
    const { url, say } = await server({ status: 500 });
    writeFileSync(join(folder, 'proxy.json'), '{"features":[{"na');
    const { canary, told } = await router(url);
    expect(told[0]).toMatch(/cannot be read/);
    expect(count(canary)).toBe(0);
    say(rollout(40));
    await eventually(() => count(canary) === expected);
    expect(JSON.parse(readFileSync(join(folder, 'proxy.json'), 'utf8')).features).toHaveLength(1);
  });

  it('random stickiness is taken for the default one: a caller does not change sides with each request', async () => {
    const random = rollout(40);
    random.strategies[0]!.parameters.stickiness = 'random';
    const { url } = await server({ body: { features: [random] } });
    const { canary } = await router(url);
    await eventually(() => count(canary) === expected);
  });

  it('one flag that makes no sense does not keep another from changing', async () => {
    const other = canaryFlag('orders');
    const { url, say } = await server({ body: { features: [rollout(40)] } });
    const { canary } = await router(url);
    await eventually(() => count(canary) === expected);
    say(rollout('nonsense'), { name: other, enabled: true, strategies: [gradualRollout(other, 100)] });
    await eventually(() => canary.isService('orders', { userId: 'somebody' }));
    expect(count(canary)).toBe(expected);
  });

  it('a constraint of Unleash is obeyed', async () => {
    const chosen = { contextName: 'userId', operator: 'IN', values: ['user-7'] };
    const strategies = [{ name: 'default', parameters: {}, constraints: [chosen] }];
    const { url } = await server({ body: { features: [rollout(0, { strategies })] } });
    const { canary } = await router(url);
    const chosenOnes = () => users.filter((userId) => canary.isService('inventory', { userId }));
    await eventually(() => chosenOnes().length > 0);
    expect(chosenOnes()).toEqual(['user-7']);
  });
});

describe('which flags a process follows', () => {
  const stateDir = join(tmpdir(), `banyan-none-${randomUUID()}`);
  const config = (env: Record<string, string>) => loadConfig({ BANYAN_STATE_DIR: stateDir, ...env });

  it("the control plane's own, with the token of routers", () => {
    expect(
      flagServerFrom(
        config({ CONTROL_URL: 'http://127.0.0.1:8090', BANYAN_CLIENT_TOKEN: 'sixteen characters' }),
        'proxy',
      ),
    ).toMatchObject({
      urls: ['http://127.0.0.1:8090/api/'],
      apiToken: 'sixteen characters',
      appName: 'banyan-proxy',
      backupFile: join(stateDir, 'flags/proxy.json'),
    });
  });

  it("a real server's where one is named", () => {
    const env = {
      CONTROL_URL: 'http://127.0.0.1:8090',
      UNLEASH_URL: 'https://flags.example/api',
      UNLEASH_API_TOKEN: 'x',
    };
    expect(flagServerFrom(config(env), 'proxy')).toMatchObject({ urls: ['https://flags.example/api/'], apiToken: 'x' });
    expect(unleashApi('https://example.com/unleash/')).toBe('https://example.com/unleash/api/');
  });

  it('none without either: nothing is in canary', async () => {
    const canary = canaryFlagsFrom(config({}), 'proxy');
    await canary.start();
    expect(canary.isService('inventory', { userId: 'somebody' })).toBe(false);
    canary.stop();
  });
});
