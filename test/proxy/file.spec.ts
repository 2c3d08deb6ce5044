import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@banyan/platform/config';
import { AccessLog, BadFile, parseFile, startStandalone } from '@banyan/proxy';
import { eventually } from '@banyan/testing';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Recorder } from './recorder.js';

const problemsOf = (text: string): readonly string[] => {
  try {
    parseFile(text, 'proxy.yaml');
  } catch (error) {
    if (error instanceof BadFile) return error.problems;
    throw error;
  }
  return [];
};

const good = `
listen: { host: 127.0.0.1, port: 8080 }
admin:  { host: 127.0.0.1, port: 8081 }
control: http://127.0.0.1:8090
routes:
  - { path: /v1/stock, context: inventory, monolith: http://127.0.0.1:3000, service: http://127.0.0.1:3103, stage: shadow, percent: 0,
      parity: { ignore: [/asOf], unordered: [/items] } }
  - { path: /, context: rest, monolith: http://127.0.0.1:3000 }
`;

describe('the file', () => {
  it('as it is documented', () => {
    const { routes, ...file } = parseFile(good, 'proxy.yaml');
    expect(file).toMatchObject({ listen: { host: '127.0.0.1', port: 8080 }, control: ['http://127.0.0.1:8090'] });
    expect(routes[0]).toMatchObject({ stage: 'shadow', parity: { ignore: ['/asOf'], unordered: ['/items'] } });
    expect(routes[1]).toMatchObject({ stage: 'monolith', percent: 0, monolith: ['http://127.0.0.1:3000'] });
  });

  it('several instances are a list', () => {
    const route = (monolith: string) => `  - { path: /, context: rest, monolith: ${monolith} }\n`;
    const several = (monolith: string) => `control: [http://a:1/, http://b:1]\nroutes:\n${route(monolith)}`;
    const { routes, control } = parseFile(several('[http://a:3000, http://b:3000]'), 'proxy.yaml');
    expect(control).toEqual(['http://a:1', 'http://b:1']);
    expect(routes[0]!.monolith).toEqual(['http://a:3000', 'http://b:3000']);
    expect(problemsOf(several('[http://a:3000, ftp://b]'))[0]).toContain('routes[0].monolith[1]: must be an address');
    expect(problemsOf(several('[http://a:3000, https://b]'))[0]).toContain('must be an address');
    expect(problemsOf(several('[]'))[0]).toContain('at least one address');
  });

  const line = (route: string) => `routes:\n  - { ${route} }\n`;
  const monolith = 'monolith: http://127.0.0.1:3000';
  it.each([
    ['an unknown stage', line(`path: /a, context: a, ${monolith}, stage: brave`), 'proxy.yaml:2:', 'routes[0].stage'],
    ['an unknown field', line(`path: /a, context: a, ${monolith}, prefix: x`), 'proxy.yaml:2:', 'routes[0].prefix'],
    ['no routes', 'listen: { port: 1 }\n', 'proxy.yaml:1:1', 'routes'],
    [
      'a percentage above 100',
      line(`path: /a, context: a, ${monolith}, percent: 101`),
      'proxy.yaml:2:',
      'routes[0].percent',
    ],
    ['no monolith', line('path: /a, context: a'), 'proxy.yaml:2:', 'routes[0].monolith'],
    [
      'an address with a path',
      line('path: /a, context: a, monolith: http://x/base'),
      'proxy.yaml:2:',
      'must not have a path',
    ],
    ['a path that is not plain', line(`path: /a/../b, context: a, ${monolith}`), 'proxy.yaml:2:', 'routes[0].path'],
    ['shadow without a service', line(`path: /a, context: a, ${monolith}, stage: shadow`), 'proxy.yaml:2:', 'service'],
    [
      'one path twice',
      `${line(`path: /a, context: a, ${monolith}`)}  - { path: /A/, context: b, ${monolith} }\n`,
      'proxy.yaml:3:',
      'has a route already',
    ],
    [
      'two opinions',
      `${line(`path: /a, context: a, ${monolith}`)}  - { path: /b, context: a, monolith: http://x }\n`,
      'proxy.yaml:3:',
      'routes[1].monolith',
    ],
    [
      'a network that would be everybody',
      `${line(`path: /a, context: a, ${monolith}`)}trustedProxies: [10.0.0.1, 10.0.0.0/]\n`,
      'proxy.yaml:3:',
      'trustedProxies[1]: must be an address such as 10.0.0.1, or a network',
    ],
    ['broken YAML', 'routes: [\n  {', 'proxy.yaml:2:', ''],
    ['one key twice', 'routes: []\nroutes: []\n', 'proxy.yaml:2:', 'unique'],
    ['no object', '- 1\n', 'proxy.yaml:1:', ''],
    ['nothing', '', 'proxy.yaml', ''],
  ])('%s is refused, with its place', (_, text, place, about) => {
    const problems = problemsOf(text);
    expect(problems.length).toBeGreaterThan(0);
    expect(problems.join('\n')).toContain(place);
    expect(problems.join('\n')).toContain(about);
  });

  it('every problem is told at once', () => {
    expect(problemsOf(`${line('path: a, context: A')}listen: { port: 99999 }\nodd: 1\n`)).toHaveLength(5);
  });
});

describe('the proxy alone', () => {
  const patient = { timeoutMs: 25_000 };

  async function alone() {
    const monolith = await Recorder.start(() => 'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nmonolith');
    const service = await Recorder.start(() => 'HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nservice');
    const folder = await mkdtemp(join(tmpdir(), 'banyan-proxy-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const path = join(folder, 'proxy.yaml');
    const write = (stage: string, more = '') =>
      writeFile(
        path,
        `listen: { port: 0 }\nadmin: { port: 0 }\nlimits: { drainMs: 50 }\nroutes:\n` +
          `  - { path: /v1/stock, context: inventory, monolith: "${monolith.url}", service: "${service.url}", stage: ${stage}, percent: 50 }\n` +
          `  - { path: /, context: rest, monolith: "${monolith.url}" }\n${more}`,
      );
    await write('monolith');
    const config = loadConfig({ BANYAN_STATE_DIR: folder, LOG_LEVEL: 'silent' });
    const proxy = await startStandalone(path, config, new AccessLog('silent', { write: () => {} }));
    onTestFinished(() => proxy.close());
    const by = async (init?: RequestInit) =>
      (await fetch(`http://127.0.0.1:${proxy.port}/v1/stock/1`, init)).headers.get('banyan-served-by');
    return { proxy, write, by };
  }

  it('reads its file again when it changes; a bad one is refused whole, and the last good one stays', async () => {
    const { proxy, write, by } = await alone();
    const refusals = async () => {
      const text = await (await fetch(`http://127.0.0.1:${proxy.adminPort}/metrics`)).text();
      return Number(/banyan_proxy_files_refused_total (\d+)/.exec(text)?.[1] ?? 0);
    };
    expect(await by()).toBe('monolith');
    await write('live');
    await eventually(async () => (await by()) === 'service', patient);
    expect(await by({ method: 'PUT', body: '{}' })).toBe('service');
    for (const more of [
      // Its first route alone would be a change.
      '  - { path: oops }\n',
      '  - { path: /x, context: inventory, monolith: "http://127.0.0.1:1" }\n',
      'servedBy: false\n',
    ]) {
      const before = await refusals();
      await write('monolith', more);
      await eventually(async () => (await refusals()) > before, patient);
      expect(await by()).toBe('service');
    }
    await write('monolith');
    await eventually(async () => (await by()) === 'monolith', patient);
  });

  it('divides the reads of a canary by session', async () => {
    const { write, by } = await alone();
    await write('canary');
    // Some of the first ones may still go by what the file said before.
    await eventually(async () => {
      const all = await Promise.all(
        Array.from({ length: 40 }, (_, n) => by({ headers: { 'banyan-session': `s${n}` } })),
      );
      for (const side of ['monolith', 'service']) expect(all.filter((each) => each === side).length).toBeGreaterThan(8);
      return true;
    }, patient);
    expect(await by({ method: 'PUT', body: '{}', headers: { 'banyan-session': 's1' } })).toBe('monolith');
  });

  it('tells its health, its figures and its divergences on another port', async () => {
    const { proxy, by, write } = await alone();
    await write('shadow');
    const ask = async (path: string) => {
      const response = await fetch(`http://127.0.0.1:${proxy.adminPort}${path}`);
      return { status: response.status, text: await response.text() };
    };
    expect((await ask('/livez')).status).toBe(200);
    expect((await ask('/readyz')).status).toBe(200);
    expect((await ask('/else')).status).toBe(404);
    await eventually(async () => {
      await by();
      return (JSON.parse((await ask('/divergences')).text) as { items: unknown[] }).items.length > 0;
    }, patient);
    expect((await ask('/metrics')).text).toMatch(
      /banyan_proxy_request_duration_seconds_count\{context="inventory",side="monolith",class="read",status="2xx"\} \d+/,
    );
  });
});
