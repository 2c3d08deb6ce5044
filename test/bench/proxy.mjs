import { execFile, fork, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from '@banyan/testing/servers';
import { root } from '../support/program.mjs';
import { figure, median, table } from '../support/report.mjs';
import { peersOf } from './peers.mjs';

const run = promisify(execFile);
const here = (file) => join(import.meta.dirname, 'proxy', file);
const CONNECTIONS = 32;
const PATH = '/v1/stock/SKU-0001';
const SESSION = 'banyan-session: s1';
/** Requests a second while a candidate is slow or dead: about a third of what the proxy can. */
const SHADOW_RATE = 1_000;

/** What a proxy costs a request, beside others in front of the same upstream. */
export async function benchProxy({ repeat, peers, quick, profile }) {
  const seconds = quick ? 2 : 5;
  const folder = peers ? await peersOf('proxy') : undefined;
  const load = await findLoad(folder);
  const nginx = peers && (await find('nginx', 'nginx-light'));
  const upstream = await start(here('upstream.mjs'));
  const UPSTREAM = `http://127.0.0.1:${upstream.port}`;
  const prof = join(root, '.banyan', 'bench-profile');
  const execArgv = profile ? ['--cpu-prof', `--cpu-prof-dir=${prof}`] : [];
  const contestants = new Map([[OURS, () => start(here('banyan.mjs'), { env: { UPSTREAM }, execArgv })]]);
  if (folder)
    for (const name of ['http-proxy-3', 'fastify-http-proxy'])
      contestants.set(name, () => start(join(folder, `${name}.mjs`), { cwd: folder, env: { UPSTREAM } }));
  if (nginx) contestants.set('nginx, one worker', () => startNginx(upstream.port));
  contestants.set('no proxy', () => Promise.resolve({ port: upstream.port, pids: [], stop: () => {} }));

  const results = new Map([...contestants.keys()].map((name) => [name, []]));
  try {
    // They take turns, so that what else the machine does hits all of them alike.
    for (let turn = 0; turn < repeat; turn++)
      for (const [name, begin] of contestants) {
        const proxy = await begin();
        try {
          await load(proxy.port, quick ? 1 : 2);
          const cpu = cpuOf(proxy.pids);
          const { requests, ...figures } = await load(proxy.port, seconds);
          results.get(name).push({ ...figures, us: ((cpuOf(proxy.pids) - cpu) * 1_000) / requests });
        } finally {
          await proxy.stop();
        }
      }
    return report(results, await benchShadow(UPSTREAM, { repeat, seconds: quick ? 3 : 8 }), {
      repeat,
      seconds,
      load,
      nginx,
      peers,
    });
  } finally {
    upstream.stop();
  }
}

const OURS = 'banyan: routes, canary flag, access log';

/** The caller's time with the mirror on at 100 % and a candidate that does not do its part. */
async function benchShadow(UPSTREAM, { repeat, seconds }) {
  const cases = {
    'shadow off': { STAGE: 'monolith' },
    'shadow on, candidate well': { SHARE: '1' },
    'shadow on, candidate takes 1 s': { SHARE: '1', DELAY_MS: '1000' },
    'shadow on, candidate hangs': { SHARE: '1', DELAY_MS: '-1' },
    'shadow on, candidate dead': { SHARE: '1', dead: true },
  };
  const results = new Map(Object.keys(cases).map((name) => [name, []]));
  for (let turn = 0; turn < repeat; turn++)
    for (const [name, { DELAY_MS = '0', dead, ...env }] of Object.entries(cases)) {
      const candidate = await start(here('upstream.mjs'), { env: { DELAY_MS } });
      const CANDIDATE = `http://127.0.0.1:${candidate.port}`;
      if (dead) await candidate.stop();
      const proxy = await start(here('banyan.mjs'), { env: { UPSTREAM, CANDIDATE, STAGE: 'shadow', ...env } });
      try {
        const open = (ms) =>
          run(process.execPath, [here('open-loop.mjs'), String(proxy.port), PATH, String(SHADOW_RATE), String(ms)]);
        await open(2_000);
        const cpu = cpuOf(proxy.pids);
        const figures = JSON.parse((await open(seconds * 1_000)).stdout);
        results.get(name).push({ ...figures, us: ((cpuOf(proxy.pids) - cpu) * 1_000) / figures.made });
      } finally {
        await proxy.stop();
        if (!dead) await candidate.stop();
      }
    }
  return results;
}

function start(script, { cwd = root, env = {}, execArgv = [] } = {}) {
  const child = fork(script, {
    cwd,
    execArgv,
    env: { ...process.env, NODE_ENV: 'production', ...env },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  return new Promise((done, fail) => {
    child.once('exit', (code, signal) => fail(new Error(`${script} ended with ${signal ?? code}`)));
    child.once('message', ({ port }) => {
      const gone = new Promise((over) => child.once('exit', over));
      done({ port, pids: [child.pid], stop: () => (child.disconnect(), gone) });
    });
  });
}

async function startNginx(upstream) {
  const [port, folder] = [await freePort(), mkdtempSync(join(tmpdir(), 'banyan-nginx-'))];
  // As one would put it in front of an app: keep-alive to the upstream, forwarded headers, the access log on and buffered.
  writeFileSync(
    join(folder, 'nginx.conf'),
    `worker_processes 1; pid ${folder}/pid; error_log ${folder}/error.log; daemon off; master_process off;
     events { worker_connections 4096; }
     http {
       access_log /dev/null combined buffer=64k;
       client_body_temp_path ${folder}/1; proxy_temp_path ${folder}/2; fastcgi_temp_path ${folder}/3; uwsgi_temp_path ${folder}/4; scgi_temp_path ${folder}/5;
       upstream app { server 127.0.0.1:${upstream}; keepalive 64; keepalive_requests 100000000; }
       server {
         listen 127.0.0.1:${port}; keepalive_requests 100000000;
         location / {
           proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
           proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
         }
       }
     }`,
  );
  const child = spawn('nginx', ['-c', join(folder, 'nginx.conf'), '-p', folder], { stdio: 'ignore' });
  const gone = new Promise((over) => child.once('exit', over));
  for (
    let tries = 0;
    !(await fetch(`http://127.0.0.1:${port}${PATH}`).then(
      ({ ok }) => ok,
      () => false,
    ));
    tries++
  )
    if (tries > 100) throw new Error('nginx does not answer');
    else await new Promise((done) => setTimeout(done, 25));
  return {
    port,
    pids: [child.pid],
    async stop() {
      child.kill('SIGKILL');
      await gone;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Is the program there? Root on Debian gets it installed; else undefined, after one line that says how to. */
async function find(program, packageName = program) {
  const found = () =>
    run('sh', ['-c', `command -v ${program}`]).then(
      () => true,
      () => false,
    );
  if (await found()) return true;
  if (process.getuid?.() === 0 && existsSync('/etc/debian_version')) {
    // Without a service being started: only the program is wanted.
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
    const install = ['install', '-y', '-qq', '--no-install-recommends', packageName];
    await run('apt-get', install, { env })
      .catch(() => run('apt-get', ['update', '-qq'], { env }).then(() => run('apt-get', install, { env })))
      .catch(() => {});
    if (await found()) return true;
  }
  console.error(`No ${program} here: install it (Debian: apt-get install ${packageName}).`);
  return false;
}

/** wrk, which costs next to nothing beside what it measures; else autocannon, which does not. */
async function findLoad(folder) {
  if (await find('wrk')) return withWrk;
  if (!folder) throw new Error('There is nothing to make load with: neither wrk nor the peers.');
  return (port, seconds) => withAutocannon(folder, port, seconds);
}

async function withWrk(port, seconds) {
  const args = [
    '-t1',
    `-c${CONNECTIONS}`,
    `-d${seconds}s`,
    '--latency',
    '-H',
    SESSION,
    `http://127.0.0.1:${port}${PATH}`,
  ];
  const { stdout } = await run('wrk', args);
  const of = (pattern) => pattern.exec(stdout)?.slice(1) ?? [];
  const [requests] = of(/(\d+) requests in/);
  const [value, unit] = of(/99%\s+([\d.]+)(us|ms|s)/);
  const failed = /Non-2xx|Socket errors/.test(stdout);
  if (failed) console.error(stdout);
  return {
    perSecond: Number(of(/Requests\/sec:\s+([\d.]+)/)[0]),
    p99: Number(value) * { us: 0.001, ms: 1, s: 1_000 }[unit],
    requests: Number(requests),
  };
}

async function withAutocannon(folder, port, seconds) {
  const args = [
    '-j',
    '-c',
    String(CONNECTIONS),
    '-d',
    String(seconds),
    '-H',
    SESSION,
    `http://127.0.0.1:${port}${PATH}`,
  ];
  const { stdout } = await run(join(folder, 'node_modules/.bin/autocannon'), args);
  const { requests, latency } = JSON.parse(stdout);
  return { perSecond: requests.average, p99: latency.p99, requests: requests.total };
}

/** ms of CPU. */
function cpuOf(pids) {
  return pids.reduce((sum, pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return sum + (Number(fields[11]) + Number(fields[12])) * 10;
  }, 0);
}

function report(results, shadow, { repeat, seconds, load, nginx, peers }) {
  const of = (name, what) => median((results.get(name) ?? []).map((result) => result[what]));
  const rows = [...results.keys()].map((name) => [
    name,
    figure(of(name, 'perSecond'), 0),
    figure(of(name, 'p99')),
    name === 'no proxy' ? '–' : figure(of(name, 'us'), 0),
    figure(of(OURS, 'perSecond') / of(name, 'perSecond')),
    name === 'no proxy' ? '–' : figure(of(name, 'us') / of(OURS, 'us')),
  ]);
  const at = (name, what) => median(shadow.get(name).map((result) => result[what]));
  const shadowRows = [...shadow.keys()].map((name) => [
    name,
    figure(at(name, 'p50')),
    figure(at(name, 'p99')),
    figure(at(name, 'p99') / at('shadow off', 'p99')),
    figure(at(name, 'us'), 0),
    figure(at(name, 'failed'), 0),
  ]);
  return {
    title: 'Proxy',
    notes: [
      `${CONNECTIONS} connections, ${seconds} s after a warm-up, by ${load === withWrk ? 'wrk' : 'autocannon'} in a process of its own; medians of ${repeat} starts in turns; one upstream for all.`,
      'Where the machine has few cores, proxy, upstream and load share them: the CPU of a request is the steadier figure.',
      `Shadow: ${SHADOW_RATE.toLocaleString('en')} reads/s in an open loop, times from when a request was due, every read mirrored.`,
      ...(peers && !nginx ? ['No nginx on this machine.'] : []),
    ],
    tables: [
      table(['proxy', 'requests/s', 'p99 ms', 'CPU us', 'requests/s, ours / it', 'CPU, it / ours'], rows),
      table(['candidate', 'p50 ms', 'p99 ms', 'p99, off = 1', 'CPU us', 'failed'], shadowRows),
    ],
  };
}
